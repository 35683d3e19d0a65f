"""cupy.cuda.nvrtc: a "cubin" here is the program's text and its options, which the emulator compiles."""

from __future__ import annotations

import json


class NVRTCError(RuntimeError):
    """An error of the compiler."""


class _Program:
    def __init__(self, text: str):
        self.text, self.options = text, None


def getVersion() -> tuple[int, int]:
    return 13, 0


def createProgram(text: str, name: str, headers: tuple, include_names: tuple) -> _Program:
    return _Program(text)


def compileProgram(program: _Program, options: tuple[str, ...]) -> None:
    program.options = options


def getCUBIN(program: _Program) -> bytes:
    """Without the last byte, as CuPy's."""
    return json.dumps([program.text, program.options]).encode()


def getProgramLog(program: _Program) -> str:
    return ""


def destroyProgram(program: _Program) -> None:
    pass


def text_and_options(cubin: bytes) -> tuple[str, tuple[str, ...]]:
    """What a cubin was made of. CUDA reads up to the final zero byte, which must be there. Not a name of CuPy's."""
    if cubin[-1:] != b"\0":
        raise NVRTCError("CUDA_ERROR_INVALID_IMAGE: the last byte is missing")
    text, options = json.loads(cubin[:-1])
    return text, tuple(options)
