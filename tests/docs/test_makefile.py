"""The Makefile's commands name files that exist, so that they follow when files move; and what `make gpu-check`
promises: parts with time limits, few files, and an end also where most of what it uses is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda_emulator.build import why_not

ROOT = Path(__file__).parents[2]
PATHS = re.compile(r"(?<![\w/.])(?:tests|benchmarks|examples|minicnn)/[\w/.]+")
PARTS = ("gpu-core", "gpu-products", "gpu-rest", "gpu-profile")
MINUTES, FILES = 9, 8
# What `make gpu-check` has to run with, besides CuPy; and what these import themselves.
LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging",
             "pygments")


def missing(text: str) -> list[str]:
    """Paths of the project that a text names and that are not there."""
    return [path for path in PATHS.findall(text) if not (ROOT / path).exists()]


def recipe(part: str) -> str:
    """The commands of a target."""
    return re.search(rf"^{part}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]


def test_every_path_exists():
    text = (ROOT / "Makefile").read_text()
    assert len(PATHS.findall(text)) > 15 and missing(text) == []


def test_a_path_that_moved_is_found():
    assert missing("pytest tests/backend tests/backend/test_cuda.py") == ["tests/backend/test_cuda.py"]


def test_each_part_ends_in_time_and_all_of_them_leave_few_files():
    files = set()
    for part in PARTS:
        assert 0 < sum(map(int, re.findall(r"\btry (\d+) ", recipe(part)))) <= 60 * MINUTES, part
        files.update(re.findall(r"\$\(RESULTS\)/([\w.-]+)", recipe(part)))
    assert 0 < len(files) <= FILES, files
    assert re.search(r"^GPU_PARTS := (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split() == list(PARTS)


def make(*arguments, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, env=os.environ | variables)


def test_gpu_py_installs_nothing():
    """Neither a virtual environment nor pip, and every command by that Python; without it, both."""
    dry = make("-n", "gpu-check", *PARTS, "GPU_PY=other-python", "VENV=not-there").stdout
    assert "pip install" not in dry and "not-there" not in dry and "other-python -m pytest" in dry
    assert "pip install" in make("-n", "gpu-core", "VENV=not-there").stdout


def test_a_failing_part_does_not_stop_the_others(tmp_path):
    """With a Python that fails at everything, each part says so, and goes on to its end."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    done = make("gpu-check", f"GPU_PY={python}", f"RESULTS={tmp_path / 'results'}")
    assert done.returncode != 0
    assert "error: failed: gpu-core gpu-rest; see the lines == FAILED" in done.stderr
    assert done.stdout.count("== FAILED (exit code 3)") >= 3
    assert "== torch is not installed: nothing is compared with PyTorch" in done.stdout
    assert "== FAILED" in (tmp_path / "results" / "rest.txt").read_text()


@pytest.fixture
def bare_python(tmp_path) -> Path:
    """A Python that has the libraries above and no others."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for name in LIBRARIES:
        found = Path(importlib.util.find_spec(name).origin)
        found = found.parent if found.name == "__init__.py" else found
        for path in {found, *found.parent.glob(f"{name}.libs"), *found.parent.glob(f"{name}-*.dist-info")}:
            (site / path.name).symlink_to(path)
    return tmp_path / "venv" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "")
def test_gpu_check_runs_to_its_end_on_a_bare_machine(bare_python, tmp_path, cuda_cache):
    """NumPy, Numba, SciPy, pytest and the stand-in for CuPy: it passes, and says what was not here."""
    results, kept = tmp_path / "results", ROOT / ".gpu" / "cupy"
    kept.mkdir(parents=True, exist_ok=True)
    for library in cuda_cache.glob("*.so"):                 # they need not be compiled again
        if not (kept / library.name).exists():
            shutil.copy(library, kept)
    done = make("gpu-check", f"GPU_PY={bare_python}", f"RESULTS={results}",
                PYTHONPATH=str(ROOT / "tests" / "cuda_standin"))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "FAILED" not in done.stdout and len(list(results.iterdir())) <= FILES
    for line in ("missing       PIL: no photographs", "== torch is not installed", "hypothesis is not installed"):
        assert line in done.stdout
    assert all(int(count) > 500 for count in re.findall(r"(\d+) passed", done.stdout))
