"""The page of bench_data.py, from made-up seconds."""

from __future__ import annotations

from bench_data import page


def row(name, times, rate):
    return {"name": name, "ratio": 1 / times, "ratio_low": 1 / (times + 0.1), "ratio_high": 1 / (times - 0.1),
            "ours_images_per_second": rate, "theirs_images_per_second": rate / times}


def test_gates_are_said_to_be_reached_or_not():
    rows = [row("feed, beside DataLoader (0)", 2.0, 4000.0), row("feed, beside DataLoader (2)", 2.0, 2900.0),
            row("prepare, beside bare decoding", 0.95, 300.0), row("train, beside a repeated batch", 0.96, 50.0)]
    report = {"machine": "A machine, 2 cores", "python": "3", "numpy": "2", "images": 2048, "photographs": False,
              "batch": 128, "cores": 2, "peer": "PyTorch 2", "others": 0.5, "rows": rows}
    text = page(report)
    assert [line.split("|")[-2].strip() for line in text.splitlines() if "beside" in line and "times" not in line] == [
        "yes", "no", "yes", "no"]
    assert "| 4,000 | 2,000 | **2.00** (1.90 to 2.10) | 1x, 3,000 images/s |" in text
    assert "Other programs used 50 %" in text and "2,048 patterns" in text
    assert "Other programs" not in page(report | {"others": 0.0})
