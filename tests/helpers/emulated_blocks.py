"""The instructions of kernels/cpu/bf16/block.py in NumPy: loops of both kinds, on the memory that kernels pass them.

Compiled kernels call these functions by their address, in the place of the machine code. So every order in which
operands are packed is checked on any machine, for AMX tiles as well as for vdpbf16ps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from minicnn.kernels.cpu.bf16 import available
from minicnn.kernels.cpu.bf16.block import ARGUMENTS, SIDE, STEP, TOGETHER, Block
from tests.helpers.bf16 import from_bf16

FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(ARGUMENTS))
KINDS = (available.TILES, available.DOTS)
alive = []                                  # what compiled code may still call


def memory(address: int, kind, count: int) -> np.ndarray:
    """`count` elements of a type of ctypes, as they lie there."""
    return np.ctypeslib.as_array((kind * count).from_address(int(address)))


def bf16_at(address: int, count: int) -> np.ndarray:
    return from_bf16(memory(address, ctypes.c_uint16, count))


def tdpbf16ps(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """c (16, 16) += a (16, 32) times b (16 pairs, 16, 2)."""
    c += np.einsum("mpe,pne->mn", a.reshape(16, 16, 2), b, dtype=np.float32)


def vdpbf16ps(c: np.ndarray, pair: np.ndarray, b: np.ndarray) -> None:
    """c (16,) += the pair's products with b (16, 2)."""
    c += b @ pair


def tiles(a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
    high, wide = (1 if size <= 16 else 2 for size in (rows, columns))
    for m in range(high):
        for n in range(wide):
            at = [memory(c + (16 * m + r) * c_row + 64 * n, ctypes.c_float, 16) for r in range(16)]
            sums = np.zeros((16, 16), np.float32) if begin else np.array(at)
            for i, (offset, _) in enumerate(memory(steps, ctypes.c_int64, 2 * count).reshape(-1, 2)):
                left = [bf16_at(a + offset + (16 * m + r) * a_row, STEP) for r in range(16)]
                tdpbf16ps(sums, np.array(left), bf16_at(b + i * b_step + n * b_half, 512).reshape(16, 16, 2))
            for row, values in zip(at, sums, strict=True):
                row[:] = values


def dots(a, a_row, places, steps, count, b, b_step, b_half, c, c_row, begin, rows, columns, ahead):
    wide, together = (1, 16) if columns <= 16 else (2, 8)
    for r in range(-(-rows // together) * together):
        place = memory(places + 8 * r, ctypes.c_int64, 1)[0]
        for n in range(wide):
            sums = memory(c + r * c_row + 64 * n, ctypes.c_float, 16)
            if begin:
                sums[:] = 0
            for i, (offset, pairs) in enumerate(memory(steps, ctypes.c_int64, 2 * count).reshape(-1, 2)):
                assert pairs % TOGETHER == 0
                for p in range(pairs):
                    vdpbf16ps(sums, bf16_at(a + place + offset + 4 * p, 2),
                              bf16_at(b + i * b_step + n * b_half + 64 * p, 32).reshape(16, 2))


def block_of(kind: str, function: Callable | None = None) -> Block:
    """The emulated inner loop of a kind; or `function` in its place."""
    is_dots = kind == available.DOTS
    called = FUNCTION(function or (dots if is_dots else tiles))
    alive.append(called)
    return Block(f"emulated {kind}", 2 * TOGETHER if is_dots else SIDE, is_dots,
                 ctypes.cast(called, ctypes.c_void_p).value)
