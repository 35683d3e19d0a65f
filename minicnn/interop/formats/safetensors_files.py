"""Safetensors files by whoever wrote them: the tensors, which are read one at a time, and the metadata."""

from __future__ import annotations

import json
from math import prod

from minicnn.errors import CheckpointError
from minicnn.interop.formats.stored import DTYPES, MAX_TENSORS, Stored, StoredFile, check_shape

MAX_HEADER = 2**24              # bytes; the metadata may hold a mean image


def read_header(file: StoredFile) -> tuple[dict[str, Stored], dict[str, str]]:
    """Name -> tensor, and the metadata. CheckpointError where the header is damaged."""
    length = int.from_bytes(file.read(0, min(8, file.size), "its beginning"), "little")
    if length > MAX_HEADER:
        raise CheckpointError(f"a safetensors header of {length:,} bytes; expected at most {MAX_HEADER:,}")
    text = file.read(8, length, "the header")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"damaged: its safetensors header is no JSON ({type(error).__name__})") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise CheckpointError("damaged: its safetensors header is no table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        metadata = {}
    return {name: _tensor(file, name, entry, 8 + length) for name, entry in header.items()}, metadata


def _tensor(file: StoredFile, name: str, entry, start: int) -> Stored:
    try:
        dtype, shape, (begin, end) = entry["dtype"], check_shape(name, entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"damaged: the entry of tensor {name!r} in its safetensors header") from error
    if dtype not in DTYPES:
        raise CheckpointError(f"tensor {name!r} is of {str(dtype)[:20]}, which is not read here; convert it to F32")
    if type(begin) is not int or type(end) is not int or end - begin != prod(shape) * int(DTYPES[dtype][1]):
        raise CheckpointError(f"damaged: tensor {name!r} of {'x'.join(map(str, shape))} {dtype} does not fit into its "
                              "bytes")
    file.check(start + begin, end - begin, f"tensor {name!r}")
    return Stored(file, name, dtype, shape, start + begin)
