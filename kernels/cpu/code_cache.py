"""Compiled kernels on disk: Numba's cache, in its folders (__pycache__, or NUMBA_CACHE_DIR), with another kind of file.

Numba renews the code of a function when the function's own file changes. Here most files are compiled into others, so
a file's name holds the digest of all that decides what the code is (VERSION). One file per function and signature:

    conv.multiply-31.py311.VERSION.SIGNATURE.nbc      CRC-32 of the rest, then the pickled key and code

A file that is damaged or of another key is compiled again and replaced; those of other versions are removed. A folder
that cannot be written to is no error: nothing is kept then.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import zlib
from functools import cache
from pathlib import Path

import llvmlite
import numba
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature

from minicnn import rng

HERE = Path(__file__).parent
OUTSIDE = (rng,)               # other modules whose values are compiled into kernels
SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")                  # of Numba
NOT_KEPT: list[str] = []       # functions for which there is no folder


def sources() -> list[Path]:
    """Every file that may be compiled into a kernel."""
    return sorted([*HERE.glob("*.py*"), *HERE.glob("*/*.py")]) + [Path(module.__file__) for module in OUTSIDE]


@cache
def version() -> str:
    """The digest of the sources, the compiler and its settings; the processor is part of each file's key."""
    digest = hashlib.sha256(repr([numba.__version__, llvmlite.__version__,
                                  [getattr(config, name, None) for name in SETTINGS]]).encode())
    for path in sources():
        digest.update(f"{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


class _Files(IndexDataCacheFile):
    """The files of one function. No index: the name follows from the key."""

    def load(self, key):
        """The code for this key; None where there is none, or where the file is not what was written."""
        with contextlib.suppress(OSError, pickle.UnpicklingError, EOFError):
            data = self._path(key).read_bytes()
            if int.from_bytes(data[:4], "little") == zlib.crc32(data[4:]):
                found, code = pickle.loads(data[4:])
                return code if found == (self._source_stamp, key) else None
        return None

    def save(self, key, data) -> None:
        body = self._dump(((self._source_stamp, key), data))
        with self._open_for_write(str(self._path(key))) as file:
            file.write(zlib.crc32(body).to_bytes(4, "little") + body)
        _remove_other_versions(self._cache_path)

    def flush(self) -> None:
        for path in Path(self._cache_path).glob(f"*.{version()}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key) -> Path:
        signature = hashlib.sha256(repr((self._source_stamp, key)).encode()).hexdigest()[:16]
        return Path(self._cache_path) / f"{self._index_name.removesuffix('.nbi')}.{version()}.{signature}.nbc"


class _Cache(FunctionCache):
    """The compiled forms of one function. RuntimeError where Numba finds no folder for them."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def save_overload(self, signature, data) -> None:
        with contextlib.suppress(OSError):              # a full disk must not end what the kernel was compiled for
            super().save_overload(signature, data)


@cache
def _remove_other_versions(folder: str) -> None:
    """Remove what other versions have left in this folder."""
    ours = re.compile(r".+\.py\d+\w*\.([0-9a-f]{16})\.[0-9a-f]{16}\.nbc(\.tmp\.\w+)?")
    with contextlib.suppress(OSError):
        for path in Path(folder).iterdir():
            if (match := ours.fullmatch(path.name)) and match[1] != version():
                path.unlink(missing_ok=True)


class _Callback(CFunc):
    """Numba's CFunc, kept in the same way."""

    def enable_caching(self) -> None:
        keep(self, self.__wrapped__)


def keep(compiled, function):
    """Give a dispatcher of Numba, or a CFunc, this cache, where a folder can be written to; returns it."""
    try:
        compiled._cache = _Cache(function)
    except RuntimeError:
        NOT_KEPT.append(function.__name__)
    return compiled


def kept_callback(function, signature) -> CFunc:
    """Compile a function for one signature; `.address` is for other code."""
    callback = _Callback(function, normalize_signature(signature), locals={}, options={})
    callback.enable_caching()
    callback.compile()
    return callback
