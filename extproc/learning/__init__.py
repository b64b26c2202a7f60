"""From samples to a model file, and from a model file to predictions."""
