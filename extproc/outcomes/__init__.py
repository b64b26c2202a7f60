"""The end of a request: access-log entry to outcome to sample."""
