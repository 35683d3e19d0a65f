"""Pickles that hold NumPy arrays, read without running them: checkpoints of cuda-convnet, and dicts of weights.

An array comes as pieces: an empty one, a dtype, and a state of shape, dtype, order and bytes. All are placeholders of
ours, which check the pieces against each other before an array is made.
"""

from __future__ import annotations

import ast
import zlib
from math import prod

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.stored import StoredFile, check_shape
from minicnn.interop.formats.unpickle import Foreign, unpickle

DTYPES = ("f4", "f8", "i4", "i8", "u1", "b1")
NPY = b"\x93NUMPY"


class Dtype:
    """A type of elements, or "O": objects."""

    def __init__(self, name="", *_):
        self.name, self.order = name if isinstance(name, str) else "", "<"

    def set_state(self, state) -> None:
        if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str):
            self.order = state[1]

    @property
    def numpy(self) -> np.dtype:
        name = self.name.lstrip("<>|=")
        if name not in DTYPES:
            raise CheckpointError(f"an array is of the type {self.name[:20]!r}; expected one of {', '.join(DTYPES)}")
        return np.dtype((">" if self.order == ">" else "<") + name)


class Array:
    """An array as it is unpickled; `read` makes it."""

    def __init__(self, *_):
        self.shape, self.dtype, self.fortran, self.data = (), None, False, b""

    def set_state(self, state) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Dtype):
            raise CheckpointError("damaged: an array in the pickle has no shape, type and data")
        _, self.shape, self.dtype, self.fortran, self.data = state

    def read(self) -> np.ndarray:
        """The values; float32 of any float."""
        if self.dtype is None:
            raise CheckpointError("damaged: an array in the pickle without data")
        dtype, shape = self.dtype.numpy, check_shape("an array", self.shape)
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        if not isinstance(data, bytes) or len(data) != prod(shape) * dtype.itemsize:
            raise CheckpointError(f"damaged: an array of {shape} does not have its bytes")
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if self.fortran else "C")
        return array.astype(np.float32, copy=False) if dtype.kind == "f" else array


KNOWN = {f"{module}.{name}": make for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
         for name, make in {"dtype": Dtype, "_reconstruct": Array, "ndarray": Array,
                            "scalar": lambda *_: Foreign("scalar")}.items()}
KNOWN |= {"_codecs.encode": lambda text, encoding="latin1": text.encode("latin1"),
          "collections.OrderedDict": lambda *_: {}}


def read_pickle(file: StoredFile):
    """The object in a pickle, compressed by gzip or not, or in a .npy file of objects."""
    data = file.read(0, file.size, "its pickle")
    if data[:2] == b"\x1f\x8b":
        data = _inflated(data, 31)
    if data[:2] == b"PK":
        data = _zipped(data)
    root, _ = unpickle(data, KNOWN, start=_after_header(data) if data[:6] == NPY else 0, encoding="latin1")
    if isinstance(root, Array) and isinstance(root.data, list) and root.shape == () and len(root.data) == 1:
        return root.data[0]                                 # of an array of one object
    return root


def _after_header(data: bytes) -> int:
    """Where the contents of a .npy file of objects begin."""
    wide = 2 if data[6:7] == b"\1" else 4
    start = 8 + wide + int.from_bytes(data[8:8 + wide], "little")
    try:
        header = ast.literal_eval(data[8 + wide:min(start, 4096)].decode("latin1").strip())
        objects = header["descr"] in ("|O", "O", "|O8")
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise CheckpointError("damaged: the header of its .npy") from error
    if not objects:
        raise CheckpointError("a .npy file of one array; expected a dict of weights, such as bvlc_alexnet.npy")
    return start


def _inflated(data: bytes, kind: int) -> bytes:
    """Decompressed data. CheckpointError for data that are much larger than their file."""
    limit = 2 * len(data) + 2**24
    machine = zlib.decompressobj(kind)
    try:
        found = machine.decompress(data, limit)
    except zlib.error as error:
        raise CheckpointError(f"damaged: its compressed data ({error})") from error
    if machine.unconsumed_tail or not machine.eof:
        raise CheckpointError("cut short, or compressed more than weights can be")
    return found


def _zipped(data: bytes) -> bytes:
    """The one member of a zip archive, as old versions of cuda-convnet wrote it."""
    name, extra = (int.from_bytes(data[at:at + 2], "little") for at in (26, 28))
    if data[8:10] not in (b"\0\0", b"\x08\0"):
        raise CheckpointError("a zip archive that is neither stored nor deflated")
    body = data[30 + name + extra:]
    if data[8:10] == b"\0\0":
        return body
    limit = 2 * len(data) + 2**24
    machine = zlib.decompressobj(-15)
    try:
        found = machine.decompress(body, limit)
    except zlib.error as error:
        raise CheckpointError(f"damaged: its compressed data ({error})") from error
    if not machine.eof:
        raise CheckpointError("cut short, or compressed more than weights can be")
    return found
