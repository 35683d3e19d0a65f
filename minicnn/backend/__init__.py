"""Where operations run. `get_ops("cpu").report()` prints the list."""

from minicnn.backend.ops import OPS, Ops, get_ops

__all__ = ["OPS", "Ops", "get_ops"]
