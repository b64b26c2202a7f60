"""An Envoy external-processing sidecar that routes LLM requests to vLLM backends."""

__version__ = "0.1.0"
