"""Whether products of bf16 can run here, and by which instructions; nothing is compiled or loaded to find out.

An instruction is used where the processor has it, Numba compiles for it (NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may say
otherwise), and, for AMX tiles, Linux has given this process permission. Else it would end the process.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

from minicnn.errors import DeviceError

TILES, DOTS = "AMX tiles", "vdpbf16ps"                  # in order of preference
NEEDS = {TILES: {"amx-tile", "amx-bf16", "avx512bf16", "avx512bw", "avx512vl"},
         DOTS: {"avx512bf16", "avx512bw", "avx512vl"}}
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18


def compiled_for() -> set[str]:
    """The features that Numba compiles for."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return {feature[1:] for feature in features if feature.startswith("+")}


def of_processor() -> set[str]:
    """The features of this processor."""
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


@cache
def tiles_permitted() -> bool:
    """Ask Linux for the AMX tiles; the permission is the process's, and its forks'."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA) == 0


def why_not(kind: str) -> str:
    """Why these instructions cannot be used; empty where they can."""
    if lacking := sorted(NEEDS[kind] - of_processor()):
        return f"this processor lacks {', '.join(lacking)}"
    if lacking := sorted(NEEDS[kind] - compiled_for()):
        return f"Numba does not compile for {', '.join(lacking)} (NUMBA_CPU_NAME, NUMBA_CPU_FEATURES)"
    if kind == TILES and not tiles_permitted():
        return "Linux does not permit this process the AMX tiles"
    return ""


def needed() -> str:
    """The instructions to use, the best of those that can be. DeviceError, with the reason, where none can."""
    reasons = {kind: why_not(kind) for kind in (TILES, DOTS)}
    usable = [kind for kind, reason in reasons.items() if not reason]
    if not usable:
        raise DeviceError(f"device 'cpu:bf16' multiplies by {TILES} or {DOTS}, and {reasons[DOTS]}; use --device cpu, "
                          "which computes in float32, and leave out --precision bf16")
    return usable[0]
