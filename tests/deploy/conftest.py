from support.stack_fixtures import stack, start_envoy

__all__ = ["stack", "start_envoy"]
