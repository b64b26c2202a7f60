"""Load on running servers, or on a whole stack: what `extproc profile` sends and measures."""
