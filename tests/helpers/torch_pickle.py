"""PyTorch's files of weights, written by hand, opcode by opcode, as torch 2.13 writes them."""

import struct
import zipfile
from dataclasses import dataclass

import numpy as np

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "bf": "BFloat16Storage"}


@dataclass
class Tensor:
    """A view of a storage: offset, size and stride in elements.   kind: a key of KINDS."""

    storage: bytes
    kind: str
    size: tuple
    stride: tuple
    key: str
    offset: int = 0
    parameter: bool = False

    @property
    def numel(self) -> int:
        return len(self.storage) // {"f4": 4, "f8": 8, "f2": 2, "i8": 8, "bf": 2}[self.kind]


def tensor(array: np.ndarray, key: str, kind: str = "f4", **options) -> Tensor:
    """The whole of a storage, contiguous."""
    if kind == "bf":
        data = (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = np.ascontiguousarray(array, "<" + kind).tobytes()
    stride = tuple(int(np.prod(array.shape[k + 1:])) for k in range(array.ndim))
    return Tensor(data, kind, array.shape, stride, key, **options)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def of_tensor(one: Tensor, legacy: bool = False) -> bytes:
    view = b"N" if legacy else b""
    storage = (b"(" + text("storage") + name("torch", KINDS[one.kind]) + text(one.key) + text("cpu")
               + number(one.numel) + view + b"tQ")
    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (one.size, one.stride)]
    made = (name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + number(one.offset) + b"".join(numbers)
            + b"\x89" + name("collections", "OrderedDict") + b")R" + b"tR")
    if one.parameter:
        return name("torch._utils", "_rebuild_parameter") + b"(" + made + b"\x88" + name(
            "collections", "OrderedDict") + b")RtR"
    return made


def of_dict(tensors: dict, legacy: bool = False) -> bytes:
    """An OrderedDict of tensors, or of bytes that are opcodes."""
    items = b"".join(text(key) + (value if isinstance(value, bytes) else of_tensor(value, legacy))
                     for key, value in tensors.items())
    return name("collections", "OrderedDict") + b")R(" + items + b"u}(" + text("_metadata") + b"}ub"


def storages(tensors: dict) -> dict:
    found = {}
    for one in tensors.values():
        if isinstance(one, Tensor):
            found[one.key] = one.storage
    return found


def save_zip(path, tensors: dict, *, wrap: str | None = None, root: bytes | None = None, order: bytes = b"little",
             extra: dict | None = None, method=zipfile.ZIP_STORED) -> None:
    """As torch.save does.   wrap: the key of a dict around the state dict.   root: opcodes of the object itself."""
    body = of_dict(tensors) if root is None else root
    if wrap:
        body = b"}(" + text(wrap) + body + text("hyper_parameters") + name("mylib", "Config") + b")\x81}b" + b"u"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("net/byteorder", order)
        for key, data in storages(tensors).items():
            archive.writestr(f"net/data/{key}", data)
        archive.writestr("net/version", b"3\n")
        for inside, data in (extra or {}).items():
            archive.writestr(inside, data)


def save_legacy(path, tensors: dict) -> None:
    """As torch.save(_use_new_zipfile_serialization=False) does."""
    data = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}(" + text(
        "little_endian") + b"\x88u."
    found = storages(tensors)
    data += b"\x80\x02" + of_dict(tensors, legacy=True) + b"." + b"\x80\x02](" + b"".join(map(text, found)) + b"e."
    numels = {one.key: one.numel for one in tensors.values() if isinstance(one, Tensor)}
    with open(path, "wb") as file:
        file.write(data + b"".join(struct.pack("<q", numels[key]) + raw for key, raw in found.items()))
