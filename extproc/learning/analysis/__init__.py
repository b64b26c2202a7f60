"""Findings from recorded samples about the backends: zones, correlations, the knee, where requests wait.

Everything here is pure and ends in plain dataclasses. A finding that the samples cannot support is left
out: the place of the number holds None, and a reason stands beside it.
"""
