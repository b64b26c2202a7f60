"""Where the backends come from: the configuration's list, DNS, or the Kubernetes API; see `source`."""
