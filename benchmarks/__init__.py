"""Benchmarks: what the router costs, measured on the machine at hand. See README.md."""
