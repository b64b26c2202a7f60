"""The commands of `extproc`, one module each, with its options; `extproc.cli` registers them.

More than two options are a dataclass, see `extproc.config.options`. A command imports the modules that it
runs on inside its function (hence no PLC0415 here): the sidecar alone brings grpc, numpy and lightgbm, and
help and status have to appear at once.
"""
