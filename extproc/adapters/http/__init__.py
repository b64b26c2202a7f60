"""The sidecar's own HTTP: state, metrics, health and the live page."""
