"""Kept machine code is that of the present sources, is whole, and ends nothing where it cannot be kept."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from minicnn.backend.cpu import thread_report
from minicnn.kernels.cpu import code_cache

ROOT = Path(__file__).parents[2]
MODULE = "from minicnn.kernels.cpu.compiling import kernel\n\n\n@kernel\ndef triple(x):\n    return 3 * x\n"
# What vectors.py says about `select` is compiled into this kernel.
LARGER = """
import numpy as np
from minicnn.kernels.cpu.compiling import kernel
from minicnn.kernels.cpu.vectors import LANES, load, select, store

@kernel
def larger(a, b, out):
    v, w = load(a, 0, LANES), load(b, 0, LANES)
    store(out, 0, LANES, select(v > w, v, w))

a, b, out = np.full(16, 5, "f4"), np.full(16, 2, "f4"), np.zeros(16, "f4")
larger(a, b, out)
print(int(out[0]), sum(larger.stats.cache_hits.values()))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where Numba keeps code, in these tests."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    (tmp_path / "triples.py").write_text(MODULE)
    return tmp_path


def triple(folder: Path):
    """The kernel of MODULE, as another process would load it: (9, whether its code was kept)."""
    spec = importlib.util.spec_from_file_location("triples", folder / "triples.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.triple(3), bool(module.triple.stats.cache_hits)


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "kept").rglob("*.*"))


def test_code_is_kept(folder):
    assert triple(folder) == (9, False)
    assert triple(folder) == (9, True) and len(kept(folder)) == 1


def test_code_of_other_sources_is_not_used_and_removed(folder, monkeypatch):
    triple(folder)
    old = kept(folder)
    code_cache._remove_other_versions.cache_clear()
    monkeypatch.setattr(code_cache, "version", lambda: "0123456789abcdef")
    assert triple(folder) == (9, False)
    assert len(kept(folder)) == 1 and kept(folder) != old
    assert triple(folder) == (9, True)


def test_a_change_of_the_functions_own_file_is_noticed(folder):
    triple(folder)
    (folder / "triples.py").write_text(MODULE.replace("3 * x", "4 * x"))
    assert triple(folder) == (12, False)


def test_the_version_is_that_of_every_file(tmp_path, monkeypatch):
    copies = [Path(shutil.copy(path, tmp_path)) for path in code_cache.sources()]
    assert {"vectors.py", "philox.py", "compiling.py", "tile.py", "rng.py"} <= {path.name for path in copies}
    monkeypatch.setattr(code_cache, "sources", lambda: copies)
    seen = {code_cache.version.__wrapped__()}
    for path in copies:
        path.write_text(path.read_text() + "#")
        seen.add(code_cache.version.__wrapped__())
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert len(seen | {code_cache.version.__wrapped__()}) == len(copies) + 2


def test_no_values_come_from_other_files():
    """Besides OUTSIDE: errors are raised, and cores counted, by Python."""
    modules = {node.module for path in code_cache.HERE.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.ImportFrom) and node.module.startswith("minicnn.")}
    found = {module for module in modules if not module.startswith("minicnn.kernels.cpu")}
    not_compiled = {"minicnn.errors", "minicnn.system.cores", "minicnn.system.terminal"}
    assert found - not_compiled == {module.__name__ for module in code_cache.OUTSIDE}


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:3], lambda data: data[:len(data) // 2],
                                    lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
                                    lambda data: bytes(4) + data[4:], lambda data: data[:200] + data])
def test_a_damaged_file_is_made_again(folder, damage):
    triple(folder)
    [path] = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert triple(folder) == (9, False)
    assert triple(folder) == (9, True)


def test_a_file_of_another_key_is_not_used(folder):
    """Such as under the same name by chance."""
    triple(folder)
    [path] = kept(folder)
    (folder / "triples.py").write_text(MODULE.replace("3 * x", "4 * x"))
    triple(folder)
    [other] = set(kept(folder)) - {path}
    path.replace(other)
    assert triple(folder)[0] == 12


def test_a_full_disk_ends_nothing(folder, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(code_cache._Files, "_open_for_write", full)
    assert triple(folder) == (9, False) == triple(folder)


def test_without_a_folder_nothing_is_kept(folder, monkeypatch):
    (folder / "file").touch()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder / "file" / "home"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(code_cache, "NOT_KEPT", [])
    (folder / "__pycache__").touch()                       # a folder that even root cannot write to
    assert triple(folder) == (9, False) == triple(folder)
    assert code_cache.NOT_KEPT == ["triple", "triple"] and "NUMBA_CACHE_DIR" in thread_report()


@pytest.mark.slow
def test_a_change_of_a_file_that_is_compiled_into_its_callers_is_noticed(tmp_path):
    """As an update of an editable installation would change it, and back."""
    ignore = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "minicnn", tmp_path / "minicnn", ignore=ignore)
    shutil.copytree(ROOT / "kernels", tmp_path / "minicnn/kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "larger.py").write_text(LARGER)
    vectors = tmp_path / "minicnn/kernels/cpu/vectors.py"
    right = vectors.read_text()
    wrong = right.replace("builder.select(*arguments)", "builder.select(arguments[0], arguments[2], arguments[1])")
    assert wrong != right

    def run(text: str) -> str:
        vectors.write_text(text)
        return subprocess.run([sys.executable, "-B", "larger.py"], cwd=tmp_path, check=True, capture_output=True,
                              text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}).stdout.strip()

    assert [run(text) for text in (right, right, wrong, wrong, right)] == ["5 0", "5 1", "2 0", "2 1", "5 0"]
