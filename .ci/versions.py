"""The tests with the oldest versions of the dependencies that pyproject.toml allows, and with the newest there are.

    python .ci/versions.py [--jobs N] [--only oldest|newest] [tests ...]

Under each Python from 3.10 to 3.14 that is on the PATH, in environments of their own in .versions/, which are kept. The
oldest versions have no wheels for the newest Pythons; that is reported and no failure, as long as one Python has them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = [f"python3.{minor}" for minor in range(10, 15)]
QUIET = ["--quiet", "--disable-pip-version-check"]


def oldest() -> list[str]:
    """What the package itself needs, each in its oldest version: "numpy==1.26"."""
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    return [f"{name}=={version}" for name, version in re.findall(r'"([\w-]+)>=([\w.]+)"', block)]


def works(python: str) -> bool:
    """Whether this name starts that Python: a version manager may have a name on the PATH and no Python behind it."""
    return bool(shutil.which(python)) and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def installed(python: str, which: str) -> Path | None:
    """An environment with the project and its tests; None where there are no wheels of these versions."""
    folder = ROOT / ".versions" / f"{python}-{which}"
    pip, pins = [folder / "bin/python", "-m", "pip", "install", *QUIET], folder / "pins.txt"
    if not pins.exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        wanted = oldest() if which == "oldest" else []
        if wanted and subprocess.run([*pip, "--only-binary", ":all:", *wanted], stderr=subprocess.DEVNULL).returncode:
            return None
        (folder / "pins").write_text("\n".join(wanted))
        subprocess.run([*pip, "--upgrade", "-c", folder / "pins", "-e", f"{ROOT}[dev]"], check=True)
        (folder / "pins").rename(pins)
    return folder


def tested(folder: Path, jobs: int, tests: list[str]) -> str:
    """The last line of the tests."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "numba"), "PYTHONPATH": ""}
    done = subprocess.run([folder / "bin/python", "-m", "pytest", "-n", str(jobs), *tests], cwd=ROOT, env=environment,
                          stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stdout)
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else f"FAILED: {done.stdout[-80:].strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=("oldest", "newest"))
    parser.add_argument("tests", nargs="*")
    options, rows = parser.parse_args(), []
    for python in filter(works, PYTHONS):
        for which in ("oldest", "newest") if options.only is None else (options.only,):
            folder = installed(python, which)
            found = "no wheels of these versions" if folder is None else tested(folder, options.jobs, options.tests)
            rows.append(f"{python:12s}{which:8s}{found}")
            print(rows[-1], flush=True)
    print(f"\noldest: {', '.join(oldest())}", *rows, sep="\n")
    ran = [row for row in rows if "no wheels" not in row]
    return int(any("FAILED" in row for row in rows) or not ran or
               options.only != "newest" and not any("oldest" in row for row in ran))


if __name__ == "__main__":
    sys.exit(main())
