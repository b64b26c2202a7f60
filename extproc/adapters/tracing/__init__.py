"""OpenTelemetry: a span for each decision that is traced, exported beside the request's path."""
