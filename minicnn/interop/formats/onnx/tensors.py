"""Tensors of ONNX: in the file, in a file beside it, or a few numbers in the message itself."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.onnx.schema import FIELDS, TYPES
from minicnn.interop.formats.stored import DTYPES, Stored, StoredFile, check_shape
from minicnn.interop.formats.wire import Reader, Span, varints


def _by(shape) -> str:
    return "x".join(map(str, shape))


class Tensors:
    """Reads the tensors of one ONNX file, and of files beside it."""

    def __init__(self, file: StoredFile, reader: Reader):
        self.file, self.reader, self.beside = file, reader, {}

    def read(self, message: dict, what: str) -> Stored | np.ndarray:
        """The tensor. CheckpointError, which names it, where its values are not what its shape says."""
        name = message.get("name", "") or what
        shape, kind = check_shape(name, message.get("dims", ())), message.get("data_type", 0)
        if kind not in TYPES:
            raise CheckpointError(f"tensor {name!r} is of the type {kind}: text, a quantised or a complex type; import "
                                  "the float model")
        dtype = TYPES[kind]
        values = [field for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
                  if message.get(field)]
        if message.get("data_location") == 1:
            return self._external(message, name, dtype, shape)
        if "raw_data" in message:
            span = message["raw_data"]
            if values or span.size != prod(shape) * int(DTYPES[dtype][1]):
                raise CheckpointError(f"damaged: tensor {name!r} of {_by(shape)} has {span.size:,} bytes")
            return Stored(self.file, name, dtype, shape, span.offset)
        array = self._typed(message, name, kind)
        if array.size != prod(shape) or values not in ([], [FIELDS.get(kind, "int32_data")]):
            raise CheckpointError(f"damaged: tensor {name!r} of {_by(shape)} has {array.size:,} elements")
        return array.reshape(shape)

    def _typed(self, message: dict, name: str, kind: int) -> np.ndarray:
        found = message.get(FIELDS.get(kind, "int32_data"), [])
        if kind in (1, 11):
            width = "<f4" if kind == 1 else "<f8"
            parts = [np.frombuffer(self.reader.data, width, span.size // int(width[2]), span.offset) for span in found]
            return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
        if not isinstance(found, Span):                     # none
            return np.zeros(0, np.int64)
        values = varints(np.frombuffer(self.reader.data, np.uint8, found.size, found.offset))
        if TYPES[kind] == "F16":
            return values.astype(np.uint16).view(np.float16).astype(np.float32)
        if TYPES[kind] == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.int64)

    def _external(self, message: dict, name: str, dtype: str, shape: tuple) -> Stored:
        entries = {entry.get("key"): entry.get("value", "") for entry in message.get("external_data", ())}
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset") or 0)
            size = int(entries.get("length") or -1)
        except ValueError:
            raise CheckpointError(f"damaged: tensor {name!r} lies at {entries}"[:200]) from None
        file, need = self._file(name, location), prod(shape) * int(DTYPES[dtype][1])
        if size not in (-1, need):
            raise CheckpointError(f"damaged: tensor {name!r} needs {need:,} bytes, {location!r} has {size:,} for it")
        file.check(offset, need, f"tensor {name!r} in {location!r}")
        return Stored(file, name, dtype, shape, offset)

    def _file(self, name: str, location: str) -> StoredFile:
        """A plain file in the folder of the model. CheckpointError for any other."""
        if location not in self.beside:
            folder = self.file.path.resolve().parent
            parts = Path(location).parts
            path = folder / location
            if not location or "\0" in location or Path(location).is_absolute() or ".." in parts:
                raise CheckpointError(f"tensor {name!r} lies in {location!r}, outside of the folder of the model; it "
                                      "was not read")
            links = [folder.joinpath(*parts[:k + 1]).is_symlink() for k in range(len(parts))]
            if any(links) or path.exists() and not path.is_file():
                raise CheckpointError(f"tensor {name!r} lies in {location!r}, which is a link or no plain file; it was "
                                      "not read")
            if not path.exists():
                raise CheckpointError(f"tensor {name!r} lies in {location!r}, which is missing; it was looked for in "
                                      f"{folder}: copy it there")
            if os.stat(path).st_nlink > 1:
                raise CheckpointError(f"tensor {name!r} lies in {location!r}, which is a hard link; it was not read: "
                                      "copy the file")
            self.beside[location] = StoredFile(path)
        return self.beside[location]
