"""g++ on a .cu file after the shim: a shared library with every kernel of the file, cached on disk."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import zlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=gnu++17", "-O2", "-g1", "-fPIC", "-w", "-fno-strict-aliasing"]
# Two libraries must not share the shared memory of templates of the same name, which C++ would merge.
ALONE = ["-fvisibility=hidden", "-fno-gnu-unique"]
# For the calls before every access, which runtime.cpp implements; never linked with the sanitizers.
WATCH = ["-fsanitize=thread", "-fsanitize=alignment"]

_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)', re.S)
_DYNAMIC = re.compile(r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];")


class EmulatorError(AssertionError):
    """An error of a kernel, or of its launch."""


@cache
def compiler() -> str:
    """Name and version of the compiler."""
    return CXX + subprocess.run([CXX, "--version"], capture_output=True, text=True).stdout


def why_not() -> str | None:
    """None where kernels can be emulated, else the reason."""
    if platform.system() != "Linux":
        return "the CUDA emulator needs Linux"
    return None if shutil.which(CXX) else f"the CUDA emulator needs {CXX}, which is not installed"


class Library:
    """A compiled .cu file. kernels: name -> names of its parameters."""

    def __init__(self, text: str, options: tuple[str, ...], cache_folder: Path):
        self.kernels = {name: [re.search(r"(\w+)\s*$", part)[1] for part in listed.split(",")]
                        for name, listed in _KERNEL.findall(text)}
        text = _DYNAMIC.sub(r"CUEMU_DYNAMIC_SHARED(\1, \2);", text)
        text += "\n" + "".join(f"CUEMU_KERNEL({name})\n" for name in self.kernels)
        macros = [option for option in options if option.startswith("-D")]
        runtime = _build((HERE / "runtime.cpp").read_text(), ["-O2"], [], cache_folder)
        shim = (HERE / "shim.h").read_text()
        self.path = _build(shim + '#line 1 "kernel"\n' + text, [*macros, *ALONE, *WATCH], [str(runtime)], cache_folder)
        self.runtime, self.code = _load(runtime), ctypes.CDLL(str(self.path))

    def where(self, pc: int) -> str:
        """file:line of an address in this library, or nothing."""
        offset = pc - 1 - self.runtime.cuemu_library_base()
        if not pc or not shutil.which("addr2line"):
            return ""
        found = subprocess.run(["addr2line", "-e", self.path, hex(offset)], capture_output=True, text=True).stdout
        return "" if found.startswith("?") else f"{Path(found.strip()).name}: "


@cache
def _load(runtime: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(runtime))
    library.cuemu_error.restype = ctypes.c_char_p
    library.cuemu_error_pc.restype = library.cuemu_library_base.restype = ctypes.c_size_t
    return library


def _build(text: str, flags: list[str], libraries: list[str], cache_folder: Path) -> Path:
    """The shared library made of `text`; built by one process while others wait for it.

    Its name is the digest of all that it is made of, and its CRC-32: a damaged one is built again.
    """
    key = hashlib.sha256("\0".join([compiler(), *FLAGS, *flags, *libraries, text]).encode()).hexdigest()[:24]
    if found := _built(cache_folder, key):
        return found
    with open(cache_folder / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := _built(cache_folder, key):
            return found
        for damaged in cache_folder.glob(f"{key}-*.so"):
            damaged.unlink()
        with tempfile.TemporaryDirectory(dir=cache_folder) as folder:
            source, code, library = (str(Path(folder) / f"kernel.{end}") for end in ("cpp", "o", "so"))
            Path(source).write_text(text)
            for command in ([CXX, *FLAGS, *flags, "-c", source, "-o", code],
                            [CXX, "-shared", code, *libraries, "-o", library]):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise EmulatorError(f"{' '.join(command)}\n{done.stderr}")
            target = cache_folder / f"{key}-{_crc32(library)}.so"
            os.replace(library, target)
    return target


def _built(cache_folder: Path, key: str) -> Path | None:
    """The library of this key, where there is one and it is whole."""
    return next((path for path in cache_folder.glob(f"{key}-*.so") if path.stem == f"{key}-{_crc32(path)}"), None)


def _crc32(path: str | Path) -> str:
    return f"{zlib.crc32(Path(path).read_bytes()):08x}"
