"""Files that are written whole, watched, or kept as a store of samples."""
