"""PyTorch's files of weights, .pth .pt .ckpt, without PyTorch: the zip of torch >= 1.6 and the format before it.

    zip       NAME/data.pkl: a pickle in which tensors are views of storages, NAME/data/KEY: one storage
    legacy    five pickles (a magic number, 1001, sizes, the object, the storages' keys), then the storages in order

A tensor is rebuilt from (storage, offset, size, stride), in elements. What the pickle holds besides tensors becomes
placeholders (unpickle.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

from minicnn.errors import CheckpointError
from minicnn.interop.formats.archive import entries
from minicnn.interop.formats.stored import DTYPES, Stored, StoredFile, check_shape
from minicnn.interop.formats.unpickle import Foreign, Name, unpickle

MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE = 64 * 2**20
STORAGES = {"FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
            "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
            "BoolStorage": "BOOL"}


@dataclass
class Storage:
    """dtype: a key of DTYPES.   numel: elements.   offset: of its first byte in the file, once that is known."""

    key: str
    dtype: str
    numel: int
    offset: int = -1


@dataclass(frozen=True)
class View:
    """A tensor as a pickle has it: a view of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class TorchFile:
    """root: the pickled object, with View in the place of tensors.   order: of bytes, "<" or ">"."""

    file: StoredFile
    root: object
    order: str

    def stored(self, name: str, view: View) -> Stored:
        """The tensor of this name, checked against its storage."""
        storage, itemsize = view.storage, int(DTYPES[view.storage.dtype][1])
        size = check_shape(name, view.size)
        if len(size) != len(view.stride) or not all(type(n) is int and n >= 0 for n in (*view.stride, view.offset)):
            raise CheckpointError(f"damaged: tensor {name!r} has size {size} and stride {view.stride}"[:200])
        last = view.offset + sum((n - 1) * step for n, step in zip(size, view.stride, strict=True))
        if prod(size) > storage.numel or (prod(size) and last >= storage.numel):
            raise CheckpointError(f"damaged: tensor {name!r} of {'x'.join(map(str, size))} reaches beyond its storage "
                                  f"of {storage.numel:,} elements")
        contiguous = all(n == 1 or step == prod(size[k + 1:]) for k, (n, step) in
                         enumerate(zip(size, view.stride, strict=True)))
        return Stored(self.file, name, storage.dtype, size, storage.offset + view.offset * itemsize,
                      None if contiguous else tuple(view.stride), self.order)


def read_torch(file: StoredFile) -> TorchFile:
    """The object in a .pth or .pt file. CheckpointError for what is damaged, or is no file of weights."""
    return _read_zip(file) if file.read(0, min(4, file.size), "its beginning") == b"PK\3\4" else _read_legacy(file)


# ---- what the pickle may name
def _rebuild(storage, offset, size, stride, *_) -> View | Foreign:
    if isinstance(storage, Storage):
        return View(storage, offset, tuple(size), tuple(stride))
    raise CheckpointError("damaged: its pickle makes a tensor of what is no storage")


def _refuse_dtype(*_):
    raise CheckpointError("a tensor is of a type such as float8, which minicnn does not read; convert the weights to "
                          "float32 and save them again")


KNOWN = {"collections.OrderedDict": lambda *args: {}, "torch.Size": lambda *args: tuple(*args),
         "torch._utils._rebuild_tensor_v2": _rebuild, "torch._utils._rebuild_tensor": _rebuild,
         "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
         "torch._utils._rebuild_tensor_v3": _refuse_dtype}


def _storage(storages: dict[str, Storage], parts) -> Storage:
    """The storage that a persistent id names: ("storage", class, key, location, elements, ...)."""
    if not (isinstance(parts, tuple) and len(parts) >= 5 and parts[0] == "storage" and isinstance(parts[1], Name)):
        raise CheckpointError("damaged: its pickle refers to data that are no storage")
    kind, key, numel = parts[1].name.rpartition("."), parts[2], parts[4]
    if kind[0] != "torch" or kind[2] not in STORAGES:
        raise CheckpointError(f"a tensor is of the type {parts[1].name[:60]}, which minicnn does not read; convert the "
                              "weights to float32 and save them again")
    if not isinstance(key, str) or type(numel) is not int or numel < 0:
        raise CheckpointError("damaged: its pickle has a storage without a name or a size")
    if len(parts) > 5 and parts[5] is not None:
        raise CheckpointError("a storage is a view of another one, as very old versions of PyTorch wrote it; load it "
                              "with torch.load and save it again")
    made = Storage(key, STORAGES[kind[2]], numel)
    found = storages.setdefault(key, made)
    if (found.dtype, found.numel) != (made.dtype, made.numel):
        raise CheckpointError(f"damaged: storage {key!r} is of {found.dtype} and of {made.dtype}, or of two sizes")
    return found


# ---- the two containers
def _read_zip(file: StoredFile) -> TorchFile:
    found = entries(file)
    folder = next((name.removesuffix("data.pkl") for name in found if name.endswith("/data.pkl")), None)
    if folder is None:
        raise CheckpointError("a zip archive without data.pkl: not a file that torch.save wrote; expected a state dict")
    if any(name.startswith((f"{folder}code/", f"{folder}constants.pkl")) for name in found):
        raise CheckpointError("a TorchScript program; load it with torch.jit.load and save model.state_dict() instead, "
                              "or export the model as ONNX")
    storages: dict[str, Storage] = {}
    root, _ = unpickle(_entry(file, found, f"{folder}data.pkl", MAX_PICKLE), KNOWN,
                       lambda parts: _storage(storages, parts))
    order = _entry(file, found, f"{folder}byteorder", 16) if f"{folder}byteorder" in found else b"little"
    for storage in storages.values():
        offset, size = found.get(f"{folder}data/{storage.key}", (0, -1))
        need = storage.numel * int(DTYPES[storage.dtype][1])
        if size != need:
            raise CheckpointError(f"damaged: storage {storage.key!r} should have {need:,} bytes, the archive has "
                                  + (f"{size:,}" if size >= 0 else "none"))
        storage.offset = offset
    return TorchFile(file, root, ">" if order.strip() == b"big" else "<")


def _entry(file: StoredFile, found: dict, name: str, limit: int) -> bytes:
    offset, size = found[name]
    if size > limit:
        raise CheckpointError(f"entry {name!r} of the archive has {size:,} bytes, more than the limit of {limit:,}")
    return file.read(offset, size, name)


def _read_legacy(file: StoredFile) -> TorchFile:
    data = file.read(0, min(file.size, MAX_PICKLE), "its pickles")
    magic, at = unpickle(data, {})
    if magic != MAGIC:
        raise CheckpointError("a pickle that PyTorch did not write; expected a state dict saved by torch.save")
    storages: dict[str, Storage] = {}
    version, at = unpickle(data, {}, start=at)
    sizes, at = unpickle(data, {}, start=at)
    root, at = unpickle(data, KNOWN, lambda parts: _storage(storages, parts), start=at)
    keys, at = unpickle(data, {}, start=at)
    if version != 1001 or not isinstance(sizes, dict) or not isinstance(keys, list):
        raise CheckpointError("damaged: the parts of its legacy format are not in order")
    order = "<" if sizes.get("little_endian", True) else ">"
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        (numel,) = struct.unpack(f"{order}q", file.read(at, 8, f"storage {key!r}"[:80]))
        if storage is None or numel != storage.numel:
            raise CheckpointError(f"damaged: storage {key!r} has {numel:,} elements, its tensors say "
                                  f"{storage.numel if storage else 'nothing'}"[:200])
        storage.offset, at = at + 8, at + 8 + numel * int(DTYPES[storage.dtype][1])
        file.check(storage.offset, at - storage.offset, f"storage {key!r}")
    if missing := [storage.key for storage in storages.values() if storage.offset < 0]:
        raise CheckpointError(f"damaged: storage {missing[0]!r} is not in the file")
    return TorchFile(file, root, order)

