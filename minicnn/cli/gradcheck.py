"""minicnn gradcheck: the hand-written gradients against finite differences."""

from __future__ import annotations

import argparse
import time

from minicnn.backend import select
from minicnn.experiment.options import add_threads
from minicnn.gradcheck.cases import GROUPS, LAYERS, NETS, names
from minicnn.gradcheck.check import table_header, table_line

ABOUT = "Check every gradient against central differences in float64."
MORE = "Exit code 1 if any gradient is wrong. All layers take some seconds, a model some tens of seconds."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="*", help="layers such as conv or lrn, models such as alexnet or resnet18, or "
                        "the groups layers (default), models, all; see --list")
    parser.add_argument("--device", default="reference", help="reference (default), cpu or cuda")
    add_threads(parser)
    parser.add_argument("--list", action="store_true", help="print what can be checked, and stop")
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="print the table of every check, not only of failed ones")


def run(options: argparse.Namespace) -> int:
    """Check what was asked for, print the tables, and say how many checks failed."""
    if options.list:
        for kind, known in ("groups", GROUPS), ("layers", LAYERS), ("models", NETS):
            print(f"{kind}   {', '.join(known)}")
        return 0
    chosen = list(dict.fromkeys(name for what in options.what or ["layers"] for name in names(what)))
    ops = select.get_ops(options.device)
    start, reports = time.perf_counter(), []
    print(f"Central differences in float64 on the {ops.name} backend.", flush=True)
    for what in options.what:
        if names(what) != [what] and what not in GROUPS:
            print(f"{what}: its reduced net {names(what)[0]} is checked, which has the same kinds of blocks")
    for name in chosen:
        for case in LAYERS.get(name, []):
            reports.append(case.run(ops))
            print(reports[-1] if options.verbose or not reports[-1].ok else _brief(reports[-1]), flush=True)
        if name in NETS:
            print(f"{name}: network in float64, weights and images drawn anew\n{table_header()}", flush=True)
            reports.append(NETS[name].run(ops.name, lambda row: print(table_line(row), flush=True)))
            for fault in reports[-1].faults:
                print(f"  FAILED: {fault}")
    failed = sum(not report.ok for report in reports)
    verdict = f"{failed} of {len(reports)} checks FAILED" if failed else f"all {len(reports)} checks passed"
    print(f"{verdict} in {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


def _brief(report) -> str:
    """One line for a check that passed."""
    elements, skipped = sum(row.checked for row in report.rows), sum(row.skipped for row in report.rows)
    note = f", {skipped} at kinks skipped" if skipped else ""
    return f"ok  {report.title}: {elements} gradient elements{note}, worst relative error {report.worst.error:.1e}"
