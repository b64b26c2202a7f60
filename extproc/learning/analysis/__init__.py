"""What recorded samples say about the backends: zones, correlations, the knee, where requests wait.

Everything here is pure and ends in plain dataclasses. What the samples cannot support is not said: the place
of the number holds None, and a reason stands beside it.
"""
