"""What the commands take and say; `extproc.cli` registers them.

Each command imports what it runs on when it runs (hence the many PLC0415), so that help and status are there
at once: the sidecar alone brings grpc, numpy and lightgbm.
"""
