"""The knowledge of every backend: membership, signals, load, leases, breakers."""
