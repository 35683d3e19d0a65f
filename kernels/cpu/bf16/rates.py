"""How fast one thread multiplies here, in bf16 and in float32, with operands in the L1 cache: a millisecond of each."""

from __future__ import annotations

import ctypes
import time

import numpy as np

from minicnn.kernels.cpu.bf16.block import HALF_BYTES, SIDE, STEP, Block, apart, begin_blocks, end_blocks
from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.memory import arrays_in
from minicnn.kernels.cpu.product import product_tiles, product_width
from minicnn.kernels.cpu.tile import call

STEPS, ROWS, RUNS = 512, 8, 16


@kernel
def _one_block(addresses, a, b, c, places, steps):
    begin_blocks(addresses)
    call(addresses[0], (a.ctypes.data, STEP * 2, places.ctypes.data, steps.ctypes.data, len(steps), b.ctypes.data, 0,
                        HALF_BYTES, c.ctypes.data, SIDE * 4, 1, SIDE, SIDE, b.ctypes.data))
    end_blocks(addresses)


def of_bf16(block: Block) -> float:
    """GFLOP/s of the inner loop of bf16."""
    a, b, c = arrays_in(None, [((SIDE, STEP), "uint16"), ((STEP, SIDE), "uint16"), ((SIDE, SIDE), "float32")])
    a[:] = b[:] = 0
    steps = np.tile(np.array([0, STEP // 2]), (STEPS, 1))
    return _best(2e-9 * STEPS * STEP * SIDE * SIDE,
                 lambda: _one_block(block.addresses, a, b, c, apart(STEP * 2), steps))


def of_float32() -> float:
    """GFLOP/s of the inner loop of float32 products."""
    width, count = product_width(4), STEPS * STEP
    a, b, c = arrays_in(None, [((ROWS,), "float32"), ((width,), "float32"), ((ROWS, width), "float32")])
    a[:], b[:] = 0, 0
    tiles = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 11)(product_tiles(np.float32))
    return _best(2e-9 * count * ROWS * width, lambda: tiles(
        a.ctypes.data, 4, 0, b.ctypes.data, 0, count, c.ctypes.data, width * 4, 0, ROWS, width))


def _best(gflop: float, function) -> float:
    function()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return gflop / min(seconds)
