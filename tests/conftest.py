"""What all tests need, before anything is imported."""

import os

# Tests that speak gRPC themselves and then start a process would run gRPC's fork handlers in the child, where
# they now and then hang before the program is there: seen once in some two hundred starts.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
