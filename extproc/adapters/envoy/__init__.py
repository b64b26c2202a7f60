"""Everything that Envoy speaks with or reads: gRPC services, their wire formats, its files."""
