"""Plant small mistakes in a copy of the project, one at a time, and see whether the tests notice.

    python -m tests.mutate.run --count 60 --seed 19        a sample, as many from each room
    python -m tests.mutate.run                             every mutant: days
    python -m tests.mutate.run --list                      verdicts so far, and what survived

Verdicts are written to .mutate/verdicts.jsonl as they come, and a run goes on where the last one was stopped. The tests
that mirror the mutant's file are run first, then those of its room, then all (`--until`). Survivors that cannot be
noticed, since they compute the same, are explained in equivalent.tsv.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from tests.mutate.rooms import ROOMS, ROOT, sources, stages
from tests.mutate.sites import Mutant, mutants

WORK = ROOT / ".mutate"
VERDICTS, COPY, EQUIVALENT = WORK / "verdicts.jsonl", WORK / "copy", Path(__file__).with_name("equivalent.tsv")
FOLDERS = ("minicnn", "kernels", "tests", "examples", "benchmarks", "docs", ".ci")
LIMIT = 1200                                                # seconds of one stage; a mutant that never ends is noticed
UNTIL = ("mirror", "room", "all")


class Planted(NamedTuple):
    room: str
    path: str
    mutant: Mutant

    @property
    def name(self) -> str:
        """Where it is and what it changes; the line's text keeps it from being taken for another after an edit."""
        line = (ROOT / self.path).read_text().splitlines()[self.mutant.line - 1].strip()
        old, new = (re.sub(r"\s+", " ", text)[:60] for text in (self.mutant.old, self.mutant.new))
        where = f"{self.path}:{self.mutant.line}:{self.mutant.column} {self.mutant.kind}"
        return f"{where}: {old or 'nothing'} -> {new or 'nothing'} in {line[:90]}"


def every(room: str) -> list[Planted]:
    return [Planted(room, path, mutant) for path in sources(room)
            for mutant in mutants((ROOT / path).read_text(), Path(path).suffix)]


def sample(seed: int, count: int | None) -> list[Planted]:
    """`count` mutants, as many of each room; all of them for None. The same for the same seed and sources."""
    shuffled = {room: every(room) for room in ROOMS}
    for room, found in shuffled.items():
        random.Random(f"{seed} {room}").shuffle(found)
    turns = [planted for planted in chain(*zip_longest(*shuffled.values())) if planted]
    return turns[:count]


# ---- one mutant
def make_copy() -> None:
    """The sources as they are now, in place of an older copy; compiled kernels there are kept."""
    COPY.mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        shutil.rmtree(COPY / folder, ignore_errors=True)
        shutil.copytree(ROOT / folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__"),
                        ignore_dangling_symlinks=True, symlinks=folder == "minicnn")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copyfile(path, COPY / path.name)


def passes(tests: list[str], numba: Path) -> tuple[bool, str]:
    """Whether these tests pass in the copy, and what says that they do not."""
    environment = {**os.environ, "PYTHONPATH": str(COPY), "NUMBA_CACHE_DIR": str(numba), "OMP_NUM_THREADS": "1",
                   "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", *tests]
    process = subprocess.Popen(command, cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
    try:
        said, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False, f"no end after {LIMIT} s"
    if process.returncode in (0, 5):                        # 5: no tests were selected
        return True, ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    if re.search(r"EmulatorError: .*\n(?:.*\n)*?.*: error: ", said):
        return False, "does not compile"
    return False, failed[1] if failed else f"exit code {process.returncode}"


def verdict(planted: Planted, until: str) -> dict:
    """What became of a mutant: "caught", "survived", or "does not compile"."""
    path, kept = COPY / planted.path, COPY / ".pytest_cache/d/cuda_emulator"
    text, libraries = path.read_text(), set(kept.glob("*"))
    compiled = planted.path.startswith("kernels/cpu")       # then all machine code of kernels is made again
    numba, began, by = WORK / ("numba-of-a-mutant" if compiled else "numba"), time.monotonic(), ""
    path.write_text(planted.mutant.apply(text))
    try:
        if path.suffix == ".py":
            compile(path.read_text(), path, "exec")         # every mutant should be Python
        for tests in filter(None, stages(planted.room, planted.path)[:UNTIL.index(until) + 1]):
            passed, by = passes(tests, numba)
            if not passed:
                break
    finally:
        path.write_text(text)
        for library in set(kept.glob("*")) - libraries if "cuda" in planted.path else ():
            library.unlink()
        if compiled:
            shutil.rmtree(numba, ignore_errors=True)
    found = "survived" if not by else "does not compile" if by == "does not compile" else "caught"
    return {"name": planted.name, "room": planted.room, "verdict": found, "by": by, "until": until,
            "seconds": round(time.monotonic() - began)}


# ---- all of them
def known() -> dict[str, dict]:
    """Name -> the last verdict."""
    lines = VERDICTS.read_text().splitlines() if VERDICTS.exists() else []
    return {record["name"]: record for record in map(json.loads, lines)}


def _is_final(record: dict | None, until: str) -> bool:
    """Whether these tests would say nothing new: it was caught, or has survived as many."""
    return record is not None and (record["verdict"] != "survived" or
                                   UNTIL.index(record["until"]) >= UNTIL.index(until))


def equivalent() -> dict[str, str]:
    """Name -> why it computes the same."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def table(records: list[dict]) -> str:
    """The verdicts as a table in Markdown."""
    why, rows = equivalent(), ["| mutant | verdict |", "|---|---|"]
    for record in records:
        name = record["name"].replace("|", "\\|")
        said = f"equivalent: {why[record['name']]}" if record["name"] in why and record["verdict"] == "survived" else \
            f"caught by `{record['by']}`" if record["verdict"] == "caught" else record["verdict"]
        rows.append(f"| `{name}` | {said} |")
    return "\n".join(rows)


def summary(records: list[dict]) -> str:
    why = equivalent()
    counted = [record for record in records if record["verdict"] != "does not compile"
               and not (record["verdict"] == "survived" and record["name"] in why)]
    caught = sum(record["verdict"] == "caught" for record in counted)
    survivors = [record["name"] for record in counted if record["verdict"] == "survived"]
    head = (f"{caught} of {len(counted)} caught ({100 * caught / max(1, len(counted)):.0f} %); "
            f"{len(records) - len(counted)} are equivalent or do not compile")
    return "\n".join([head, *[f"survived: {name}" for name in survivors]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, help="mutants of the sample; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--until", choices=UNTIL, default="all", help="the last tests to try")
    parser.add_argument("--list", action="store_true", help="run nothing: print the table of verdicts of the sample")
    options = parser.parse_args()
    chosen, done = sample(options.seed, options.count), known()
    if not options.list:
        make_copy()
        for number, planted in enumerate(chosen, 1):
            if not _is_final(done.get(planted.name), options.until):
                done[planted.name] = found = verdict(planted, options.until)
                with open(VERDICTS, "a") as file:
                    file.write(json.dumps(found) + "\n")
            print(f"{number}/{len(chosen)} {done[planted.name]['verdict']:16s} {planted.name}", flush=True)
    records = [done[planted.name] for planted in chosen if planted.name in done]
    print(*([table(records)] if options.list else []), summary(records), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
