"""A simulated vLLM server over HTTP: the engine of `simulation/` in real time, without a GPU."""
