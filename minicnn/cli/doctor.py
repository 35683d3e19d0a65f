"""minicnn doctor: one screen about an installation."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from minicnn.backend.cpu import bf16_report, thread_report
from minicnn.backend.select import get_ops
from minicnn.errors import MinicnnError

# What a machine may lack: the module or program, and what that costs. CuPy is in the line of device "cuda".
MISSING = {
    "PIL": "no photographs are read", "safetensors": "no weights are read or written", "tqdm": "no training",
    "matplotlib": "no pictures", "torch": "nothing is compared with PyTorch",
    "pytest": "no tests", "hypothesis": "tests on random inputs are skipped", "threadpoolctl": "tests are slower",
    "xdist": "tests run one after another", "mpi4py": "ranks are threads of one process",
    "g++": "CUDA kernels are not tested on the emulator", "nvidia-smi": "no NVIDIA driver, or it is not on the path",
    "compute-sanitizer": "races and stray accesses on a GPU are not looked for",
    "ncu": "no hardware counters of a GPU", "mpiexec": "ranks are threads of one process",
}
PROGRAMS = ("g++", "nvidia-smi", "compute-sanitizer", "ncu", "mpiexec")
ABOUT = "Print versions, threads and devices: what a bug report needs."
LIBRARIES = ("numpy", "numba", "pillow", "matplotlib", "tqdm", "safetensors", "elpv-dataset", "simplejpeg", "torch")


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> int:
    """Print one screen about this installation."""
    from minicnn import __version__

    print(f"minicnn       {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"processor     {_processor()}")
    for name in LIBRARIES:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        print(f"{name:14s}{found}")
    print(f"reference     {_device('reference')}")
    print(f"cpu           {_device('cpu')}")
    print(f"cpu:bf16      {_device('cpu:bf16')}")
    print(f"cuda          {_device('cuda')}")
    print(f"auto          {_auto()}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR"):
        if name in os.environ:
            print(f"{name}={os.environ[name]}")
    for line in missing():
        print(line)
    return 0


def missing() -> list[str]:
    """A line for each module or program that is not here: what its absence costs."""
    absent = {name: cost for name, cost in MISSING.items()
              if (shutil.which(name) if name in PROGRAMS else importlib.util.find_spec(name)) is None}
    return [f"{'missing' if i == 0 else '':14s}{name}: {cost}" for i, (name, cost) in enumerate(absent.items())]


def _auto() -> str:
    try:
        return f"{get_ops('auto').name}: cuda where it works, else cpu"
    except MinicnnError:
        return "neither cuda nor cpu works"


def _processor() -> str:
    """The processor's name and the cores that this process may use."""
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or 'unknown'}, {cores} cores for this process"


def _device(name: str) -> str:
    """Whether a backend works here: it is made, and multiplies a small matrix."""
    try:
        ops = get_ops(name)
        x, w, y = (ops.from_host(np.ones(shape, "float32")) for shape in ((2, 3), (3, 4), (2, 4)))
        ops.linear_forward(x, w, y)
    except MinicnnError as error:
        return str(error)
    if not (ops.to_host(y) == 3).all():
        return "computes wrong results"
    if name == "cuda":
        return f"works as {ops.spec}; {ops.device.describe()}"
    if name == "cpu:bf16":
        return f"works; {bf16_report()}"
    if name == "cpu":
        return f"works; {thread_report()}"
    return "works (NumPy, slow: the specification)"


if __name__ == "__main__":      # python -m minicnn.cli.doctor: where a library that other commands need is missing
    sys.exit(run(argparse.Namespace()))
