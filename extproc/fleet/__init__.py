"""What is known of every backend: membership, signals, load, leases, breakers."""
