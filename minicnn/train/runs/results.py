"""A page of results that runs add themselves to: FILE.json holds their reports, FILE.md shows them."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

from minicnn.backend.cpu import thread_report
from minicnn.errors import ConfigError
from minicnn.system.cores import available_cores
from minicnn.system.files import signed, unsigned, write_text
from minicnn.system.lock import waiting
from minicnn.train.runs.run_dir import check_writable


def known_runs(path: Path) -> dict[str, dict]:
    """Command -> report, of the runs that the page has so far. ConfigError where its JSON cannot be read."""
    kept = _file(path, ".json")
    try:
        reports = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        return {report["command"]: unsigned(report) for report in reports}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{kept} does not hold the runs of an earlier --results ({error}); move it away") from error


def check_page(path: Path) -> None:
    """Raise before training what add_to_page would raise after it; nothing is made yet."""
    check_writable(path.parent)
    known_runs(path)


def add_to_page(path: Path, reports: list[dict], order: Callable[[dict], object],
                lines: Callable[[list[dict]], list[str]]) -> None:
    """Add reports, each with "command" and "machine", and write both files again.

    A report replaces an older one with the same command. order: the key they are sorted by; lines: the page of all of
    them in Markdown, to which the list of commands is added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with waiting(path.parent):                          # another run may add itself at the same moment
        known = known_runs(path) | {report["command"]: report for report in reports}
        reports = sorted(known.values(), key=order)
        lines_of = [json.dumps(signed(report, "run")) for report in reports]
        write_text(_file(path, ".json"), "[\n" + ",\n".join(lines_of) + "\n]\n")
        commands = [f"- `{report['command']}` ({report['machine']})" for report in reports]
        write_text(_file(path, ".md"), "\n".join([*lines(reports), "## Commands and machines", "", *commands, ""]),
                   errors="backslashreplace")           # a folder's name may be no text


def _file(path: Path, ending: str) -> Path:
    """FILE.json or FILE.md, for a FILE that may have been given with one of these endings."""
    return path.with_name((path.stem if path.suffix in (".json", ".md") else path.name) + ending)


def machine(device: str) -> str:
    """A description of this machine and of the device (`ops.spec`) that a run was made on."""
    return f"{platform.system()} {platform.machine()}, {available_cores()} cores; {device}, {thread_report()}"
