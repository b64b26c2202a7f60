"""Simulated traffic: arrivals, conversations, lengths."""
