"""A file that others wrote, and the tensors in it, which are read when they are needed, one at a time.

Nothing in the file is trusted: every read is checked against its size, and nothing is allocated before that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError

MAX_BYTES = 4 * 2**30           # of weights in a file
MAX_TENSORS = 100_000
# Names of safetensors -> NumPy's; bfloat16 is read as 16 bits, the upper half of a float32.
DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
          "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "u1"}
FLOATS = ("F64", "F32", "F16", "BF16")


class StoredFile:
    """A file by its path, with reads that stay inside of it. CheckpointError where it cannot be read.

    It is open for as long as a tensor of it may be read, that is until the last reference is gone, or `close`.
    """

    descriptor = -1

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "no such file"
            raise CheckpointError(f"{what}; expected a file with weights")
        try:
            self.size = self.path.stat().st_size
            self.descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}") from error
        if not self.size:
            raise CheckpointError("the file is empty")

    def check(self, offset: int, count: int, what: str) -> None:
        """CheckpointError unless these bytes are in the file."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise CheckpointError(f"cut short or damaged: {what} should be bytes {offset:,} to {offset + count:,} "
                                  f"of a file of {self.size:,}")

    def read(self, offset: int, count: int, what: str) -> bytes:
        """These bytes."""
        self.check(offset, count, what)
        return os.pread(self.descriptor, count, offset)

    def array(self, offset: int, count: int, dtype: str, what: str) -> np.ndarray:
        """`count` elements from this byte on. May be called by several threads."""
        nbytes = count * np.dtype(dtype).itemsize
        self.check(offset, nbytes, what)
        found = np.empty(count, dtype)
        view, done = memoryview(found.view(np.uint8)), 0
        while done < nbytes:                                # a call reads at most 2 GB
            got = os.preadv(self.descriptor, [view[done:]], offset + done)
            if not got:
                raise CheckpointError(f"cut short while {what} was read")
            done += got
        return found

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def __del__(self):
        self.close()


@dataclass(frozen=True)
class Stored:
    """A tensor of a file.

    dtype: a key of DTYPES.   strides: in elements, or None where the tensor is contiguous.   order: "<" or ">".
    """

    file: StoredFile
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None
    order: str = "<"

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def read(self) -> np.ndarray:
        """The values: float32 of any float, else integers. It may be a strided view of what was read."""
        if self.strides is None:
            array = self._load(prod(self.shape)).reshape(self.shape)
        else:
            span = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
            flat = self._load(span if prod(self.shape) else 0)
            array = np.lib.stride_tricks.as_strided(
                flat, self.shape, [stride * flat.itemsize for stride in self.strides], writeable=False)
        return array

    def rows(self, begin: int, end: int) -> np.ndarray:
        """The values of this part of the first axis, of a contiguous tensor."""
        row = prod(self.shape[1:])
        flat = self._load((end - begin) * row, begin * row)
        return flat.reshape(end - begin, *self.shape[1:])

    def _load(self, count: int, first: int = 0) -> np.ndarray:
        at = self.offset + first * int(DTYPES[self.dtype][1])
        flat = self.file.array(at, count, self.order + DTYPES[self.dtype], f"tensor {self.name!r}")
        if self.dtype == "BF16":
            return (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.astype(np.float32, copy=False) if self.is_float else flat


class InMemory:
    """An array that was computed, in the place of a stored tensor."""

    is_float, dtype, strides = True, "F32", None

    def __init__(self, name: str, array: np.ndarray):
        self.name, self.shape, self._array = name, tuple(array.shape), array

    def read(self) -> np.ndarray:
        return self._array.astype(np.float32, copy=False)

    def rows(self, begin: int, end: int) -> np.ndarray:
        return self._array[begin:end].astype(np.float32, copy=False)


def check_shape(name: str, shape: Iterable, limit: int = MAX_BYTES // 4) -> tuple[int, ...]:
    """The shape. CheckpointError unless it has at most 8 axes, none negative, and at most `limit` elements."""
    shape = tuple(shape)
    if len(shape) > 8 or not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise CheckpointError(f"damaged: tensor {name!r} has the shape {_short(shape)}")
    if prod(shape) > limit:
        raise CheckpointError(f"tensor {name!r} has {prod(shape):,} elements, more than the limit of {limit:,}")
    return shape


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
