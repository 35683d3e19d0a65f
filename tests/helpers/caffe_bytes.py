"""Caffe's networks as binary and as text, from nested lists of (field, value): an encoder of a few lines."""

import numpy as np

from minicnn.interop.formats.caffe import schema
from minicnn.interop.formats.wire import encoded, field


def message(table: dict, **fields) -> bytes:
    """A message by the names of its fields; dicts are messages, lists are repeated, bytes stay as they are."""
    numbers = {name: (number, kind) for number, (name, kind) in table.items()}
    return b"".join(one(*numbers[name], value) for name, value in fields.items())


def one(number: int, kind, value) -> bytes:
    kind, values = (kind[0], value) if isinstance(kind, list) else (kind, [value])
    if kind == "floats":
        return field(number, np.asarray(value, "<f4").tobytes())
    if kind == "doubles":
        return field(number, np.asarray(value, "<f8").tobytes())
    if kind == "ints":
        return field(number, b"".join(encoded(item) for item in value))
    if kind == "float":
        return b"".join(field(number, float(item)) for item in values)
    if isinstance(kind, dict):
        return b"".join(field(number, item if isinstance(item, bytes) else message(kind, **item)) for item in values)
    return b"".join(field(number, item) for item in values)


def blob(array, *, legacy: bool = False, double: bool = False, chunks: int = 1) -> bytes:
    """A BlobProto.   legacy: its shape in four numbers.   chunks: the data in so many fields."""
    array = np.asarray(array)
    if legacy:
        four = (1,) * (4 - array.ndim) + array.shape
        head = message(schema.BLOB, **dict(zip(("num", "channels", "height", "width"), four, strict=True)))
    else:
        head = message(schema.BLOB, shape={"dim": list(array.shape)})
    kind = "double_data" if double else "data"
    return head + b"".join(message(schema.BLOB, **{kind: part}) for part in np.array_split(array.reshape(-1), chunks))


def net(layers: list[dict], name: str = "n", **fields) -> bytes:
    return message(schema.NET, name=name, layer=layers, **fields)


def text(value, table: dict, indent: str = "") -> str:
    """The same fields as text, without blobs; enumerations by number."""
    kinds = {name: kind for name, kind in table.values()}
    lines = []
    for name, items in value.items():
        kind = kinds[name]
        repeated, kind = (True, kind[0]) if isinstance(kind, list) else (kind == "ints", kind)
        for item in items if repeated else [items]:
            if name == "blobs":
                continue
            if isinstance(kind, dict):
                lines.append(f"{indent}{name} {{\n{text(item, kind, indent + '  ')}{indent}}}")
            else:
                lines.append(f"{indent}{name}: " + (f'"{item}"' if kind == "text" else f"{item}"))
    return "\n".join(lines) + "\n"
