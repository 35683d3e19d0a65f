"""Running metrics, and the file of JSON lines."""

import json

import numpy as np
import pytest

from minicnn.evaluate.metrics import RunningMetrics, majority, top_k_correct
from minicnn.train.runs.metrics import MetricsLog, read_metrics


def test_top_k_correct_against_sorting(rng):
    scores = rng.integers(0, 6, size=(200, 12)).astype(np.float32)          # many ties
    labels = rng.integers(0, 12, size=200)
    order = np.argsort(-scores, axis=1, kind="stable")                      # the lower index first among equals
    for k in (1, 3, 5, 12):
        correct = sum(label in row[:k] for label, row in zip(labels, order, strict=True))
        assert top_k_correct(scores, labels, k) == correct


def test_running_metrics_are_means_over_images_and_can_be_stored(rng):
    scores, labels = rng.normal(size=(30, 8)), rng.integers(0, 8, size=30)
    whole, first = RunningMetrics(), RunningMetrics()
    whole.add(1.0, scores[:10], labels[:10])
    first.add(1.0, scores[:10], labels[:10])
    second = RunningMetrics(**json.loads(json.dumps(first.state())))
    for metrics in (whole, second):
        metrics.add(4.0, scores[10:], labels[10:])
    assert whole.result() == second.result()
    assert whole.result()["loss"] == pytest.approx(3.0)
    ranks = (scores > scores[np.arange(30), labels][:, None]).sum(axis=1)   # of the labels, 0 to 7
    assert set(ranks) == set(range(8))
    assert whole.result()["top1"] == pytest.approx((ranks < 1).mean())
    assert whole.result()["top5"] == pytest.approx((ranks < 5).mean())
    assert whole.since(first.state()).state() == {"images": 20, "loss": 80.0, "top1": (ranks[10:] < 1).sum(),
                                                  "top5": (ranks[10:] < 5).sum()}


def test_majority():
    assert majority(np.array([0, 1, 1, 2, 1])) == 0.6


def test_a_resumed_log_is_truncated_to_the_checkpoints_length(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write({"kind": "other", "step": 1})
    keep, _ = log.position()
    log.write({"kind": "other", "step": 2, "by": "the run that was killed"})
    log.close()
    with open(tmp_path / "m.jsonl", "ab") as file:
        file.write(b'{"step": 3, "unfin')
    assert [r["step"] for r in read_metrics(tmp_path / "m.jsonl")] == [1, 2]
    log = MetricsLog(tmp_path / "m.jsonl", keep=keep)
    log.write({"kind": "other", "step": 2})
    log.close()
    assert (tmp_path / "m.jsonl").read_text() == \
        '{"kind": "other", "step": 1}\n{"kind": "other", "step": 2}\n'


def test_what_is_not_a_number_is_not_written(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        log.write({"loss": float("nan")})
    log.close()
