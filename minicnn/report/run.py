"""What a run folder holds: its best checkpoint, metrics, test result and ledger."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from minicnn.data.input import InputPipeline
from minicnn.errors import DataError
from minicnn.evaluate.protocols import PROTOCOLS
from minicnn.experiment import own_net
from minicnn.experiment.options import device_of
from minicnn.experiment.settings import about_of
from minicnn.experiment.trained import load_trained
from minicnn.graph import Net
from minicnn.models.registry import MODELS
from minicnn.system.files import unsigned
from minicnn.train.recipe import Recipe
from minicnn.train.runs.checkpoint import NUMBER, interpreting, misfit
from minicnn.train.runs.metrics import SCORES, read_metrics
from minicnn.train.runs.run_dir import BEST, LEDGER, METRICS, TEST, find_checkpoint
from minicnn.visualize.units import prediction_plan

TESTED = {"set": str, "majority": NUMBER, **{protocol.label: SCORES for protocol in PROTOCOLS.values()}}
EXCHANGED = {"rank": int, "ranks": int, "scheme": str, "steps": int, "rows": [
    {"point": str, "direction": str, "sent": NUMBER, "received": NUMBER, "moving_ms": NUMBER, "waiting_ms": NUMBER,
     "hidden_ms": NUMBER}]}


@dataclass
class Run:
    """checkpoint: the file that `net` was loaded from, with its metadata.   settings: those it was started with.
    records: of metrics.jsonl, [] where there is none.   test, ledger: of their files, or None."""

    checkpoint: Path
    meta: dict
    settings: dict
    recipe: Recipe
    net: Net
    pipeline: InputPipeline
    records: list[dict]
    test: dict | None
    ledger: dict | None

    @property
    def folder(self) -> Path:
        return self.checkpoint.parent

    @property
    def classes(self) -> list[str]:
        return self.meta["classes"]

    @property
    def epochs(self) -> list[dict]:
        """The records of whole epochs."""
        return [record for record in self.records if record["kind"] == "epoch"]

    @property
    def model(self) -> str:
        """The network by the name that starts it."""
        name = self.settings["model"] or self.net.name
        return own_net.short(name) if own_net.is_own(name) else name

    @property
    def title(self) -> str:
        """The network in prose, with its variant."""
        variant = self.settings["variant"]
        title = MODELS[self.model].title if self.model in MODELS else self.model
        return f"{title} ({variant})" if variant else title

    @property
    def data(self) -> str:
        """The name of the set, without its part; "" where it is not known."""
        name = self.meta["identity"]["data"]["train"]
        return "" if "imported" in self.meta else name.rpartition(" (")[0].removesuffix("/train")

    @property
    def macs(self) -> int:
        """Multiply-adds of a prediction for one image, at least 1."""
        return max(1, sum(step.macs for step in prediction_plan(self.net).steps))


def read_run(options: argparse.Namespace) -> Run:
    """The run that options.which names; MinicnnError in one line where it cannot be read."""
    checkpoint = find_checkpoint(options.runs, options.which, BEST)
    net, pipeline, meta = load_trained(checkpoint, device_of(options, options.device))
    metrics = checkpoint.parent / METRICS
    with interpreting(checkpoint):
        return Run(checkpoint, meta, about_of(meta), Recipe.from_dict(meta["recipe"]), net, pipeline,
                   read_metrics(metrics) if metrics.is_file() else [],
                   _json(checkpoint.parent / TEST, TESTED, f"minicnn train --resume {checkpoint.parent} evaluates the "
                         "run and writes it again"),
                   _json(checkpoint.parent / LEDGER, EXCHANGED, "the report then has no table of what the ranks "
                         "exchanged"))


def _json(path: Path, shape: dict, then: str) -> dict | None:
    """What minicnn wrote there; None where there is no such file. DataError where it is damaged.

    shape: as misfit takes it; protocols may lack.   then: what follows when the file is removed.
    """
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if wrong := misfit(data, dict, "it") or misfit(found := unsigned(data), _there(shape, found), "it"):
            raise ValueError(f"damaged, it cannot {wrong}")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {error}; remove it; {then}") from error
    return found


def _there(shape: dict, found: dict) -> dict:
    """The shape without the protocols that were not used."""
    return {name: inner for name, inner in shape.items() if inner is not SCORES or name in found}
