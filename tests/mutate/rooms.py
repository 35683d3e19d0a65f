"""Which sources are mutated, and in which order tests are run: those that mirror the file, of its room, all."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
NET = ("plan", "graph", "backprop", "builder", "weights", "trace", "checks", "param", "rng", "init", "shapes")
# room: sources, by pattern; test folders or files
ROOMS: dict[str, tuple[list[str], list[str]]] = {
    "kernels/reference": (["kernels/reference/*.py"], ["tests/kernels", "tests/test_mutations.py"]),
    "kernels/cpu": (["kernels/cpu/**/*.py"], ["tests/kernels", "tests/backend", "tests/test_mutations.py"]),
    "kernels/cuda": (["kernels/cuda/*.cu*", "minicnn/backend/cuda/**/*.py"],
                     ["tests/kernels", "tests/backend", "tests/test_mutations.py",
                      "tests/cuda_emulator/test_emulator.py"]),
    "plan and graph": ([f"minicnn/{name}.py" for name in NET],
                       ["tests/test_plan.py", "tests/test_fusion.py", "tests/test_graph.py", "tests/test_trace.py",
                        "tests/test_graph_messages.py", "tests/test_save_and_load.py", "tests/test_state.py",
                        "tests/test_rng.py", "tests/test_shapes.py", "tests/test_param.py", "tests/test_ownership.py"]),
    "layers": (["minicnn/layers/*.py"], ["tests/layers", "tests/gradcheck", "tests/test_mutations.py"]),
    "train": (["minicnn/train/**/*.py"], ["tests/train"]),
    "evaluate": (["minicnn/evaluate/*.py"], ["tests/evaluate", "tests/train/runs/test_metrics.py"]),
    "data": (["minicnn/data/**/*.py"], ["tests/data"]),
    "visualize": (["minicnn/visualize/**/*.py"], ["tests/visualize", "tests/cli/test_look.py"]),
    "interop": (["minicnn/interop/**/*.py"], ["tests/interop", "tests/cli/test_import.py"]),
    "parallel": (["minicnn/parallel/*.py"], ["tests/parallel"]),
}
# Files that others are made of: the tests of a kernel that is.
MIRRORS = {"gemm": ["linear", "gemm_tiling"], "hopper": ["gemm_tiling"], "common": ["activation", "epilogue"],
           "update": ["sgd", "adam"], "window": ["pool"], "microkernel": ["linear", "conv"], "product": ["linear"],
           "correlate": ["conv"], "philox": ["dropout"], "elementwise": ["activation"], "compiling": ["activation"],
           "windows": ["conv"], "launcher": ["ops"], "arguments": ["ops"], "source": ["ops"]}
QUICK = ["tests"]                                           # by pyproject.toml: what is not slow
SKIPPED = {"kernels/cpu/code_cache.py", "kernels/cpu/llvm_code.py"}     # caching and code generation


def sources(room: str) -> list[str]:
    """The files of a room, relative to the project."""
    found = {path.relative_to(ROOT).as_posix() for pattern in ROOMS[room][0] for path in ROOT.glob(pattern)}
    return sorted(path for path in found - SKIPPED if not path.endswith("__init__.py"))


def stages(room: str, path: str) -> list[list[str]]:
    """The tests to run for a mutant of this file, one list after the other until one fails; the first may be empty."""
    stem, folders = Path(path).stem.removesuffix("_hopper"), ROOMS[room][1]
    names = {stem, stem.removesuffix("_weights"), stem.partition("_")[0], *MIRRORS.get(stem, ())}
    mirrors = {test.relative_to(ROOT).as_posix() for name in names for test in ROOT.glob(f"tests/**/test_{name}.py")}
    kinds = ROOT / "tests/mutations" / f"{stem}.py"
    planted = ["tests/test_mutations.py"] if kinds.exists() and room.startswith(("kernels", "layers")) else []
    first = sorted(test for test in mirrors if test.startswith(tuple(folders))) + planted
    return [first, folders, QUICK]
