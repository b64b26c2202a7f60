"""The policies that are compared, each faithful to its source."""
