from integration.conftest import stack, start_envoy

__all__ = ["stack", "start_envoy"]
