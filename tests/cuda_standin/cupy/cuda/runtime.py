"""cupy.cuda.runtime: one H100."""

from __future__ import annotations

cudaDevAttrMaxSharedMemoryPerMultiprocessor, cudaDevAttrMaxSharedMemoryPerBlockOptin = 81, 97           # noqa: N816
SHARED_BY_REQUEST, MEMORY = 227 * 1024, 80 << 30
_ATTRIBUTES = {cudaDevAttrMaxSharedMemoryPerMultiprocessor: 228 * 1024,
               cudaDevAttrMaxSharedMemoryPerBlockOptin: SHARED_BY_REQUEST}


class CUDARuntimeError(RuntimeError):
    """An error that the CUDA runtime or driver returns."""


def getDeviceCount() -> int:
    return 1


def getDevice() -> int:
    return 0


def getDeviceProperties(index: int) -> dict:
    return {"name": b"Stand-in for an H100", "major": 9, "minor": 0, "totalGlobalMem": MEMORY}


def deviceGetAttribute(attribute: int, index: int) -> int:
    return _ATTRIBUTES[attribute]


def deviceGetPCIBusId(index: int) -> str:
    return "0000:00:00.0"


def driverGetVersion() -> int:
    return 13000


def memGetInfo() -> tuple[int, int]:
    """Free bytes and all bytes."""
    return MEMORY, MEMORY
