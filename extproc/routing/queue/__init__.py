"""Requests that wait here for a place on a backend: `admission.mode: queue`."""
