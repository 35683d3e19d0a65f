"""From kernels/cuda/*.cu to cubins: the text with its headers inserted, the parameters of its kernels, and NVRTC.

Two properties of CuPy matter here. It caches compiled kernels by their text, without the headers that they include, so
headers are inserted into the text first. And it does not check a kernel's arguments: parameters are read from the text,
and launcher.py checks every argument against them.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from pathlib import Path

import numpy as np

from minicnn.errors import DeviceError
from minicnn.system.files import remedy, write_bytes

# Options of NVRTC besides the number type; no fast-math, whose divisions and exponentials exceed the tolerances.
OPTIONS = ("-std=c++17",)
# Options that CuPy 14.2 adds (cupy/cuda/compiler.py), besides paths to headers, of which we need none.
CUPY_ADDS = ("-ftz=true", "--device-as-default-execution-space")
HOPPER = "-arch=sm_90a"     # instructions of the H100 and H200 alone: no other generation has them
REAL = {"float32": "float", "float64": "double"}
BF16 = np.dtype(np.uint16)     # an array of these holds bf16: NumPy has no such type
DIVISOR = np.dtype([("by", "u4"), ("magic", "u4"), ("shift", "u4")])                 # see common.cuh
TYPES = {"int": np.int32, "unsigned": np.uint32, "byte": np.uint8, "float": np.float32, "double": np.float64,
         "Divisor": DIVISOR}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel. type: of a scalar, or of the elements of a pointer; T is the file's number type, and S
    that of activations in memory, which is T or bf16.
    fields: name -> type, in order, where the parameter is a struct."""

    name: str
    type: str
    pointer: bool = False
    const: bool = False
    fields: tuple[tuple[str, str], ...] = ()

    def dtype(self, real: str, bf16: bool = False) -> np.dtype:
        """The NumPy dtype of the type; real: float32 or float64.   bf16: S is."""
        if self.fields:
            return np.dtype([(name, real if kind == "T" else TYPES[kind]) for name, kind in self.fields])
        if self.type == "S" and bf16:
            return BF16
        return np.dtype(real if self.type in "TS" else TYPES[self.type])


def files() -> list[str]:
    """The names of the kernel files: "activation", "augment" ..."""
    folder = resources.files("minicnn.kernels") / "cuda"
    return sorted(path.name.removesuffix(".cu") for path in folder.iterdir() if path.name.endswith(".cu"))


@cache
def source(name: str) -> str:
    """The text of kernels/cuda/<name>.cu with its headers inserted; messages keep the files' line numbers."""
    done: set[str] = set()

    def text_of(file: str) -> str:
        lines = [f'#line 1 "{file}"']
        text = (resources.files("minicnn.kernels") / "cuda" / file).read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            header = re.match(r'\s*#include "(.+)"', line)
            if header and header[1] not in done:
                done.add(header[1])
                lines += [text_of(header[1]), f'#line {number + 1} "{file}"']
            elif not header and line.strip() != "#pragma once":
                lines.append(line)
            else:
                lines.append("")
        return "\n".join(lines)

    return text_of(f"{name}.cu") + "\n"


def options(text: str, dtype: str, products: str = "Tf32", more: tuple[str, ...] = (),
            bf16: bool = False) -> tuple[str, ...]:
    """The compiler's options for a file's text in one number type. products: the type that its tensor cores read,
    if it uses them.   more: options of a launch (gemm_tiling.Product.options).   bf16: activations are stored so."""
    return (*OPTIONS, f"-DREAL={REAL[dtype]}", *(["-DSTORED=Bfloat"] if bf16 else []),
            *([f"-DPRODUCTS={products}"] if "PRODUCTS" in text else []), *more)


def real_dtype(dtype) -> np.dtype:
    """What arrays of this dtype are computed with: float32 for bf16."""
    return np.dtype(np.float32) if dtype == BF16 else np.dtype(dtype)


_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)', re.S)
_STRUCT = re.compile(r"^struct (\w+) \{\s*\n(.*?)^\};", re.M | re.S)
_FIELDS = re.compile(r"^\s*(int|unsigned|float|T|Divisor) ([\w, ]+);", re.M)
_PARAMETER = re.compile(r"(const )?(\w+)(\*)?\s*(\w+)")


@cache
def kernels(name: str) -> dict[str, list[Parameter]]:
    """Kernel -> its parameters, for one file. Raises DeviceError for a type that is not in TYPES."""
    text = re.sub(r"//.*", "", source(name))
    structs = {struct: tuple((field.strip(), kind) for kind, names in _FIELDS.findall(body)
                             for field in names.split(","))
               for struct, body in _STRUCT.findall(text) if struct not in TYPES}
    found = {}
    for kernel, listed in _KERNEL.findall(text):
        found[kernel] = []
        for part in listed.split(","):
            match = _PARAMETER.fullmatch(part.strip())
            if not match or match[2] not in {"T", "S", *TYPES, *structs}:
                raise DeviceError(f"kernels/cuda/{name}.cu: {kernel} takes {part.strip()!r}; a parameter must be a "
                                  f"struct of the file, or one of T, S, {', '.join(TYPES)}, or a pointer to one")
            found[kernel].append(Parameter(match[4], match[2], bool(match[3]), bool(match[1]),
                                           structs.get(match[2], ())))
    return found


def compiled(name: str, text: str, options: tuple[str, ...]) -> Path:
    """A cubin in CuPy's cache folder, compiled by NVRTC if it is not there; its name ends with its CRC-32.

    Raises DeviceError with the compiler's messages, or where the folder cannot be written to.
    """
    nvrtc = import_module("cupy").cuda.nvrtc
    options = (*options, *CUPY_ADDS)
    key = hashlib.sha256(repr((text, options, nvrtc.getVersion())).encode()).hexdigest()[:32]
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    for path in folder.glob(f"minicnn-{name}-{key}-*.cubin"):
        if path.stem.endswith(f"-{zlib.crc32(path.read_bytes()):08x}"):
            return path
    program = nvrtc.createProgram(text, f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, options)
        cubin = nvrtc.getCUBIN(program) + b"\0"            # CuPy cuts off the last byte, as of a string
    except nvrtc.NVRTCError as error:
        raise DeviceError(f"kernels/cuda/{name}.cu cannot be compiled with {' '.join(options)}: "
                          f"{nvrtc.getProgramLog(program).strip()}") from error
    finally:
        nvrtc.destroyProgram(program)
    path = folder / f"minicnn-{name}-{key}-{zlib.crc32(cubin):08x}.cubin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, cubin)
    except OSError as error:
        raise DeviceError(f"{path}: a compiled kernel cannot be written: {error.strerror or error}; "
                          f"{remedy(error, 'choose another folder with CUPY_CACHE_DIR')}") from error
    return path
