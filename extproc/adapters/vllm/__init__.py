"""The side of the backends: their metrics, and the models that they serve."""
