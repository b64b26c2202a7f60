"""The exceptions of the project, one small tree.

Refusing a request is a value, not an exception. They stand for bad configuration, a file that
must not be used, a peer that breaks its protocol, or a local stack that cannot start.
"""


class ExtprocError(Exception):
    """The root: a command prints its message, without a traceback, and exits with status 1."""


class CalibrationError(ExtprocError):
    """A recorded load, or a profile file, that does not tell how fast a server is."""


class ConfigError(ExtprocError):
    """A configuration that cannot be used; the message lists every fault found in it."""


class ModelFileError(ExtprocError):
    """A model file that is truncated, of another format, or disagrees with its own self-test."""


class ProfileError(ExtprocError):
    """Servers that cannot be profiled: not reachable, without the model, or failing all the time."""


class ProtocolError(ExtprocError):
    """A peer sent bytes or an order of messages that its protocol does not allow."""


class ReportError(ExtprocError):
    """A report that cannot be written."""


class SampleStoreError(ExtprocError):
    """A sample store that cannot be opened, read or written."""


class StackError(ExtprocError):
    """The local stack could not be started: a taken port, a missing binary, a process that died."""


class TrainingError(ExtprocError):
    """Samples that no model can be made from; the message says how many were usable, and why no more."""
