"""Backends: the operations on NumPy, the CPU and CUDA. `get_ops("cpu").report()` lists them."""

from minicnn.backend.ops import OPS, Ops
from minicnn.backend.select import get_ops

__all__ = ["OPS", "Ops", "get_ops"]
