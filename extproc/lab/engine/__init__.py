"""A model of vLLM's continuous batching, without I/O or clock."""
