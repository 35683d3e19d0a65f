"""Errors that a user can act on.

Each message is one line: what is wrong, where, what was expected, what came, and what to do about it.
The command line and the examples print it after `error:` and end with exit code 2; anything else that is
raised is a bug in minicnn and keeps its traceback.
"""


class MinicnnError(ValueError):
    """Base of every error caused by input rather than by a bug."""


class ShapeError(MinicnnError):
    """An array or a layer does not fit its neighbour; the message names the layer."""


class ConfigError(MinicnnError):
    """An option, variant or recipe that does not exist or does not make sense."""


class DataError(MinicnnError):
    """A folder or an image that cannot be used; the message names it."""


class CheckpointError(MinicnnError):
    """A checkpoint that is missing, cut short, or of another network."""


class DeviceError(MinicnnError):
    """A device or backend that cannot be used here, with the reason."""
