"""What all tests need, before anything is imported."""

import os

from hypothesis import HealthCheck, settings

# Tests that speak gRPC themselves and then start a process would run gRPC's fork handlers in the child, where
# they now and then hang before the program is there: seen once in some two hundred starts.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# How long an example takes says what else the machine is doing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
