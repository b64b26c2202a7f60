"""What the backends are asked: their metrics, and the models that they serve."""
