"""The sidecar behind a real Envoy, against an empty ext_proc server in the same run."""
