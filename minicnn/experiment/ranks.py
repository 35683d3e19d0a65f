"""A run on several ranks: threads of this process, or the processes that mpiexec has started."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from minicnn.errors import ConfigError, expected_one_of
from minicnn.experiment.nets import title
from minicnn.experiment.say import draw, say
from minicnn.parallel.launch import launch, started_ranks
from minicnn.parallel.parallel_net import SCHEMES, ParallelNet
from minicnn.system.files import signed, write_json
from minicnn.train.runs.run_dir import LEDGER
from minicnn.visualize.columns import draw_columns


def on_ranks(settings: dict, options: argparse.Namespace, prepare: Callable, body: Callable):
    """body(comm, *prepare(local_size)) on every rank; comm is None on a single one. Returns what this rank returned.

    prepare is called once in each process; local_size: how many ranks share the machine.
    """
    scheme = settings["parallel"]
    if scheme == "none":
        if started_ranks():
            raise ConfigError("mpiexec has started several processes, each of which would train a network of its own; "
                              f"add --parallel {', or '.join(SCHEMES)}, or leave mpiexec out")
        return body(None, *prepare(1))
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown --parallel {scheme!r}: {expected_one_of(scheme, ['none', *SCHEMES])}")
    ranks = options.ranks if started_ranks() else settings["ranks"]      # mpiexec knows better than an old run
    return launch(ranks, prepare, lambda comm, ready: body(comm, *ready), options.comm_timeout)


def report_ranks(settings: dict, net: ParallelNet, run_dir: Path) -> None:
    """What crossed between the ranks: a table, ledger.json, and for two columns a picture, columns.png."""
    ledger = net.comm.ledger
    print(ledger.table())
    write_json(run_dir / LEDGER, signed({"rank": ledger.rank, "ranks": ledger.size, "scheme": settings["parallel"],
                                         "steps": ledger.steps, "rows": ledger.rows()}, "ledger"))
    if settings["parallel"] != "columns" or net.comm.size != 2:
        return
    if net.has_branches:
        say("picture", "none of the columns, which is of layers one after the other: this network has branches")
    else:
        batch = settings["batch"]
        draw(draw_columns, *net.drawing(batch), run_dir / "columns.png", f"{title(settings)} on two ranks",
             f"bytes that cross in a forward pass of {batch} images ({net.dtype}), and again in the backward pass; "
             "milliseconds of both")
