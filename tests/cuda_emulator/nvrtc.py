"""NVRTC through ctypes: CUDA C++ to a cubin with no GPU, driver or CuPy; the wheel nvidia-cuda-nvrtc is enough."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
from functools import cache
from importlib import metadata
from pathlib import Path

from minicnn.backend.cuda import source as cuda_source
from minicnn.system.files import write_json


@cache
def library() -> ctypes.CDLL | None:
    """libnvrtc of the installed wheel, or None where there is none."""
    try:
        files = metadata.files("nvidia-cuda-nvrtc") or []
    except metadata.PackageNotFoundError:
        return None
    paths = {kind: next((file.locate() for file in files if re.match(rf"lib{kind}\.so\.\d", file.name)), None)
             for kind in ("nvrtc-builtins", "nvrtc")}
    if None in paths.values():
        return None
    ctypes.CDLL(str(paths["nvrtc-builtins"]), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(paths["nvrtc"]))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return nvrtc


def compile_cubin(text: str, name: str, arch: str | None, options: tuple[str, ...]) -> tuple[bytes, str]:
    """The cubin for sm_<arch>, unless the options name one, and the log, in which ptxas reports registers and spills.
    Raises on errors."""
    nvrtc, program, size = library(), ctypes.c_void_p(), ctypes.c_size_t()

    def check(result: int) -> None:
        if result:
            raise RuntimeError(nvrtc.nvrtcGetErrorString(result).decode())

    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), f"{name}.cu".encode(), 0, None, None))
    try:
        more = (*cuda_source.CUPY_ADDS, *([f"-arch=sm_{arch}"] if arch else []), "--ptxas-options=-v")
        given = [option.encode() for option in (*options, *more)]
        result = nvrtc.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        check(nvrtc.nvrtcGetProgramLog(program, log))
        if result:
            raise RuntimeError(f"{name}.cu with {' '.join(options)}, sm_{arch}:\n{log.value.decode()}")
        check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        cubin = ctypes.create_string_buffer(size.value)
        check(nvrtc.nvrtcGetCUBIN(program, cubin))
        return cubin.raw, log.value.decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def kept_log(text: str, name: str, arch: str | None, options: tuple[str, ...], folder: Path) -> str:
    """The log of compile_cubin, kept in `folder` under the digest of all that decides what it is."""
    everything = repr((metadata.version("nvidia-cuda-nvrtc"), cuda_source.CUPY_ADDS, text, name, arch, options))
    path = folder / f"nvrtc-{hashlib.sha256(everything.encode()).hexdigest()[:24]}.json"
    if not path.exists():
        cubin, log = compile_cubin(text, name, arch, options)
        assert cubin[:4] == b"\x7fELF"
        write_json(path, log)
    return json.loads(path.read_text())


def resources(log: str) -> dict[str, dict[str, int]]:
    """Kernel -> registers, bytes of shared memory, of stack, and of spills, from what ptxas -v writes."""
    found, name = {}, None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name = match[1]
            found[name] = {"registers": 0, "shared": 0, "stack": 0, "spills": 0}
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            found[name]["stack"] = max(found[name]["stack"], int(match[1]))
            found[name]["spills"] += int(match[2]) + int(match[3])
        elif match := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            found[name] |= {"registers": int(match[1]), "shared": int(shared[1]) if shared else 0}
    return found
