"""Where operations run. `get_ops("cpu").report()` prints the list."""

from minicnn.backend.ops import OPS, Ops
from minicnn.backend.select import get_ops

__all__ = ["OPS", "Ops", "get_ops"]
