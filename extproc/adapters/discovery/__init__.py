"""Where the backends come from: a list, DNS, the Kubernetes API, or a file; see `source` and `kinds`."""
