"""Device name to backend: `get_ops("cpu")`, `get_ops("cuda:bf16")`, `get_ops("auto")`."""

from __future__ import annotations

import importlib
from functools import cache

from minicnn.backend import ops as operations
from minicnn.backend.ops import BACKENDS, Ops
from minicnn.errors import DeviceError


def get_ops(device: str = "auto") -> Ops:
    """The operations of "reference", "cpu", "cuda", or "auto": cuda where it works, else cpu. Created once per GPU.

    "cuda" is the GPU that the calling thread uses. "cuda:fp32", "cuda:tf32" (the same as "cuda"), "cuda:bf16" and
    "cuda:fp16" choose the rounding of its matrix products (backend/cuda/ops.py); with "cuda:bf16", activations are
    stored in bf16, too. "cpu:bf16" does the same (backend/cpu.py). "auto:bf16" is "cuda:bf16" or "cpu:bf16".

    Raises DeviceError, with the reason and what to do, where the device cannot be used.
    """
    on_host = device.partition(":")[0] in ("reference", "cpu")
    return _kept_ops(device, None if on_host else importlib.import_module("minicnn.backend.cuda.device").current_gpu())


@cache
def _kept_ops(device: str, gpu: int | None) -> Ops:
    return make_ops(device)


def make_ops(device: str) -> Ops:
    """The same, but a new object for each call."""
    device, _, precision = device.partition(":")
    if device == "auto":
        loader = importlib.import_module("minicnn.backend.cuda.device")
        device = "cpu" if loader.why_not() else "cuda"
    if device == "reference" and not precision:
        return Ops("reference", "minicnn.kernels.reference")
    if device == "reference":
        raise DeviceError("device 'reference' computes in the precision of its arrays; one can be chosen for cpu and "
                          f"cuda, as in cpu:{precision}")
    if device in BACKENDS:
        module = {"cpu": "minicnn.backend.cpu", "cuda": "minicnn.backend.cuda.ops"}[device]
        return importlib.import_module(module).make_ops(*([precision] if precision else []))
    raise DeviceError(f"unknown device {device!r}{' with a precision' if precision else ''}: expected one of "
                      f"{', '.join(BACKENDS)}, auto, cpu:bf16, cuda:fp32, cuda:tf32, cuda:bf16, cuda:fp16")


operations.get_ops = get_ops                # 0.1.0 had it there; the package imports this file with it
