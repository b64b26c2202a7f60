from support.stack_fixtures import shared_stack, stack, start_envoy, start_sim

__all__ = ["shared_stack", "stack", "start_envoy", "start_sim"]
