"""bench_scaling.py without its clock: the model fitted to steps that were made up, its picture and its page."""

from __future__ import annotations

import argparse
import json

import pytest
from bench_scaling import fit, keep, plot, predict
from scaling_model import SCHEMES, Machine, step
from scaling_page import scaling_page

TRUE = Machine(5e-3, latency=3e-4, bandwidth=4e9, overlap=0.75, sgd=0.02)
OPTIONS = argparse.Namespace(gpu_rate=10_000, gpu_batch=128, latency=1e-5, bandwidth=25e9, overlap=0.9, memory=1.5e12)


def crossing(point, received):
    moving = 1e3 * (TRUE.latency + received / TRUE.bandwidth)
    return {"point": point, "received": received, "moving_ms": moving, "waiting_ms": 1.0, "hidden_ms": 0.0}


def made_up_rows(batch=128):
    """One thread alone and two ranks with each scheme, on a machine that follows the model."""
    rows = []
    for scheme, ranks in (("alone", 1), *((scheme, 2) for scheme in SCHEMES)):
        seconds = TRUE.sgd + batch * TRUE.seconds_per_image if scheme == "alone" else step(TRUE, scheme, ranks, batch)
        gradients = {"point": "gradients", "received": 10**8, "moving_ms": 30.0, "waiting_ms": 10.0, "hidden_ms": 30.0}
        ledger = {"alone": [], "columns": [crossing("conv3", 11_075_584), crossing("fc6", 2_359_296),
                                           crossing("fc7", 1_048_576)]}.get(scheme, [gradients])
        ratio = 0.95 if scheme == "columns" else 0.85
        rows.append({"name": f"{scheme}, {ranks}", "scheme": scheme, "ranks": ranks, "threads": 1, "seconds": seconds,
                     "images_per_second": batch / seconds, "ratio": ratio, "ratio_low": ratio - 0.02,
                     "ratio_high": ratio + 0.02, "fastest": scheme == "alone", "crowded": False, "sgd": TRUE.sgd,
                     "rows": ledger, "model_ms": None})
    return rows


def test_the_model_is_recovered():
    found = fit(made_up_rows(), 128)
    assert vars(found) == pytest.approx(vars(TRUE), rel=1e-6)


def test_crowded_ranks_are_not_used_for_messages():
    rows = made_up_rows()
    for row in rows:
        row["crowded"] = row["scheme"] != "alone"
    found = fit(rows, 128)
    assert found.seconds_per_image == pytest.approx(TRUE.seconds_per_image) and found.overlap == 1.0


def test_page_and_pictures(tmp_path):
    """Both kinds of ranks beside each other, whichever was run last, and whether the gates hold."""
    rows = made_up_rows()
    fitted, (assumed, table) = fit(rows, 128), predict(OPTIONS)
    for mpi in (True, False):
        report = {"batch": 128, "pairs": 15, "mpi": mpi, "others": 0.2 * mpi, "busy": 0.05, "measured": rows,
                  "fitted": vars(fitted), "assumed": vars(assumed), "gpu_batch": 128, "predicted_efficiency": table}
        keep(tmp_path / "machine", report, lambda path: plot(path, rows, fitted, 128, table, OPTIONS))
    page = (tmp_path / "machine-scaling.md").read_text()
    assert page.index("threads of one process") < page.index("processes (mpiexec)")
    assert page.count("columns, 2: **0.950** of the fastest single process; gate 0.9: holds") == 2
    assert page.count("data, 2: **0.850** of the fastest single process; gate 0.9: missed") == 2
    assert "hybrid, 2: **" not in page and page.count("other programs used 20 %") == 1
    assert "5.00 ms an image and thread, messages 300 us + bytes / 4.00 GB/s, overlap 0.75, SGD 20 ms" in page
    for name in ("threads", "processes"):
        assert f"(machine/scaling-{name}.png)" in page
        assert (tmp_path / f"machine/scaling-{name}.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "machine/scaling-threads.json").read_text())["measured"][0]["scheme"] == "alone"


def test_close_is_neither():
    rows = made_up_rows()
    rows[1] |= {"ratio": 0.89, "ratio_high": 0.91}
    report = {"machine": "a machine", "python": "3", "numpy": "2", "batch": 128, "pairs": 15, "mpi": False,
              "others": 0.0, "busy": 0.05, "measured": rows, "fitted": vars(TRUE), "assumed": vars(TRUE),
              "gpu_batch": 128, "predicted_efficiency": {"columns": {"2": 0.9, "64": float("nan")}}}
    page = scaling_page([report], ["a.png"])
    assert "0.890** of the fastest single process; gate 0.9: close" in page and "| columns | 0.900 |  |" in page
