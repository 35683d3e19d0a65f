"""Loss, accuracy and learning rate of a run, as data for the charts and for the table below them."""

from __future__ import annotations

import numpy as np

from minicnn.report.run import Run

POINTS = 1500                       # of a curve over steps, at most


def curves(run: Run) -> dict | None:
    """{"charts", "table", "from", "to"}; None where there are no metrics of a whole epoch.

    charts: name -> {"series": [{"name": key of a text, "x", "y", "role"}], "majority"}.   table: a row per epoch.
    """
    if not run.epochs:
        return None
    steps = [record for record in run.records if record["kind"] == "step"]
    at = [record["epoch"] - 1 + record["step"] / record["steps"] for record in steps]
    x = [record["epoch"] for record in run.epochs]
    majority = next((record["majority"]["val"] for record in run.records if record["kind"] == "run"), None)
    single = _series("steps", "steps", *thinned(at, [record["loss"] for record in steps]))
    return {"charts": {
        "loss": {"range": shown_range(run.epochs, steps), "series": [
            single, *(_series(part, part, x, [record[part]["loss"] for record in run.epochs])
                      for part in ("train", "val"))]},
        "accuracy": {"series": [_series(part, part, x, [100 * record[part]["top1"] for record in run.epochs])
                                for part in ("train", "val")], "majority": majority and 100 * majority},
        "lr": {"series": [_series("lr", "lr", *thinned(at, [record["lr"] for record in steps]))
                          if steps else _series("lr", "lr", x, [record["lr"] for record in run.epochs])]}},
        "table": [{"epoch": record["epoch"], "lr": record["lr"], "train": record["train"], "val": record["val"],
                   "best": record.get("best"), "seconds": record["time"]["seconds"]} for record in run.epochs],
        "first": run.epochs[0], "last": run.epochs[-1], "majority": majority}


def shown_range(epochs: list[dict], steps: list[dict]) -> list[float]:
    """From lowest to highest: all means of epochs and nearly all steps, of which a few may lie outside."""
    losses = sorted(record["loss"] for record in steps)
    losses = losses[len(losses) // 100:max(1, len(losses) * 98 // 100)]
    losses += [record[part]["loss"] for record in epochs for part in ("train", "val")]
    room = 0.06 * (max(losses) - min(losses)) or 0.1
    return [max(0.0, min(losses) - room), max(losses) + room]


def _series(name: str, role: str, x: list, y: list) -> dict:
    return {"name": name, "role": role, "x": [round(float(value), 4) for value in x],
            "y": [float(f"{value:.6g}") for value in y]}


def thinned(x: list[float], y: list[float], most: int = POINTS) -> tuple[list[float], list[float]]:
    """At most so many points, each the mean of as many neighbours."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.array([x, y]), most, axis=1)
    return tuple(map(list, np.array([part.mean(axis=1) for part in parts]).T))
