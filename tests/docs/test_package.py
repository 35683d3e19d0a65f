"""The sdist is the project: what git tracks, so that a contributor can build and test from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ("PKG-INFO", "setup.cfg", "minicnn.egg-info/")           # by the build


def tracked() -> list[str]:
    """What git tracks, as far as it is there."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a checkout of git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


@pytest.mark.slow
def test_the_sdist_holds_what_git_tracks(tmp_path):
    names, copy = tracked(), tmp_path / "copy"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    build = "import setuptools.build_meta; print(setuptools.build_meta.build_sdist('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    with tarfile.open(next((copy / "dist").iterdir())) as sdist:
        found = {name.partition("/")[2] for name in sdist.getnames() if sdist.getmember(name).isfile()}
    assert {name for name in found if not name.startswith(MADE)} == set(names)


def test_every_package_is_named():
    """setup.py names those of kernels/ one by one."""
    kernels = ROOT / "kernels"
    folders = sorted(path.relative_to(kernels).as_posix() for path in kernels.rglob("*")
                     if path.is_dir() and not path.name.startswith(("_", ".")))
    assert folders == ["cpu", "cpu/bf16", "cuda", "reference"]
    assert all(f'"{name}"' in (ROOT / "setup.py").read_text() for name in folders)
