"""Launches of epilogue.cu: the backward pass of bias and ReLU."""

from __future__ import annotations

from minicnn.backend.cuda.kinds.kind import Kind
from minicnn.backend.cuda.launcher import THREADS, ceil_div, vector

CHUNKS = 1024               # at most, of a sum over rows: several blocks for each multiprocessor


class Epilogue(Kind):
    """The gradient of bias and ReLU."""

    def epilogue_backward(self, dy, db, *, y=None, add=True):
        """In place: dy is masked by y > 0 where y is given; then db += its sum over rows, unless db is None."""
        if db is None:
            if y is not None:
                self.relu_backward(y, dy, dy)
            return
        K = dy.shape[-1]
        rows = dy.size // K
        packs = self._gpu.packs(K, dy, y)
        columns = K // vector(dy) if packs else K
        wide = min(32, columns)
        tall, across = THREADS // wide, ceil_div(columns, wide)
        chunk = max(4 * tall, ceil_div(rows, max(1, CHUNKS // across)))
        chunks = ceil_div(rows, chunk)
        (partial,) = self._gpu.scratch([(chunks, K)], db.dtype)
        self._gpu.launch("epilogue", "epilogue_sums", (across, chunks), (dy, y, partial, rows, K, chunk, packs),
                         block=(wide, tall))
        self._gpu.launch("epilogue", "epilogue_add", ceil_div(K, 32), (partial, db, chunks, K, int(add)),
                         block=(32, 32))
