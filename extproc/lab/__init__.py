"""The laboratory: nothing of it runs in a sidecar."""
