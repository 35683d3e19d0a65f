"""`minicnn report`: what it computes, what it says of what is missing, and one line for a mistake."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from minicnn.errors import DataError
from minicnn.evaluate.evaluate import Evaluation
from minicnn.report import held_out as predicting
from minicnn.report.build import gather
from minicnn.report.curves import thinned
from minicnn.report.held_out import BARS, MISTAKES, OTHERS, HeldOut, bars, chosen, confusion, most_images, shown
from minicnn.report.machine import Timeline
from minicnn.report.page import Words, render
from minicnn.report.pictures import GREY, heat, mosaic, picture
from minicnn.report.run import read_run
from minicnn.train.runs.checkpoint import load_checkpoint, save_checkpoint
from minicnn.train.watch.timeline import Bar
from tests.cli.test_cli import run
from tests.report.conftest import options_of

LIMIT = 10_000_000                              # bytes of the file


def test_the_command_writes_one_file(capsys, run_folder, tmp_path):
    out = tmp_path / "new" / "page.html"
    code, text, err = run(capsys, "report", str(run_folder), "--data", "synthetic", "--images", "12", "--device",
                          "reference", "--language", "ko", "--out", str(out))
    assert code == 0 and not err and text.splitlines()[-1] == str(out) and "12 of" in text
    page = out.read_text(encoding="utf-8")
    assert len(page.encode()) < LIMIT and '<html lang="ko">' in page and "Content-Security-Policy" in page
    assert not re.findall(r"""(?:src|href)=["']?(?!#|data:)[^"'> ]+""", page.partition("/**\n* plotly.js")[0])


def test_what_is_shown(sections):
    assert sections["about"]["parameters"] == sections["run"].net.num_params and sections["differs"] is None
    assert len(sections["held"].images) == 24 and sections["held"].part == "test"
    assert len(sections["curves"]["table"]) == 2 and len(sections["curves"]["charts"]["loss"]["series"]) == 3
    frames = sections["filters"]["frames"]
    assert frames[0]["epoch"] == 0 and frames[0]["moved"] == 0 < frames[-1]["moved"] and len(frames) > 1
    photos = sections["photographs"]
    assert [photo["number"] for photo in photos] == list(range(1, len(photos) + 1))
    assert photos[0]["wrong"] and photos[0]["guess"] != photos[0]["true"]
    assert all(photo["deconvnet"]["layer"] == "pool1" for photo in photos) and len(sections["covered"]) == 3
    assert sections["covered"][0]["name"] == photos[sections["covered"][0]["number"] - 1]["guess"]
    assert {one["layer"] for one in sections["strongest"]} == {"conv1"}
    memory = sections["memory"]
    assert 0 < memory.arena < memory.separate and 0 < memory.turn < memory.steps
    assert all(block.offset + block.nbytes <= memory.arena for block in memory.blocks)
    assert [bar["name"] for bar in sections["timeline"].lane("update")] == ["update"]


def test_what_is_predicted_is_said_before(capsys, monkeypatch, run_folder):
    """Predictions may take a minute."""
    monkeypatch.setattr(predicting, "evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predicting.held_out(read_run(options_of(run_folder)), options_of(run_folder))
    assert "of 24 of" in capsys.readouterr().out


def test_epochs_are_rounded(sections):
    frames = [{**sections["filters"]["frames"][-1], "epoch": 0.618234}]
    page = render("en", sections | {"filters": {**sections["filters"], "frames": frames}})
    assert "Epoch 0.618<" in page


def test_names_are_escaped(sections):
    """Of classes and files, which a stranger may have chosen."""
    evil = '<img src=x onerror="alert(1)">'
    photos = [photo | {"true": evil} for photo in sections["photographs"]]
    page = render("en", sections | {"photographs": photos, "about": sections["about"] | {"classes": [evil, "b"]}})
    assert evil not in page and "&lt;img src=x" in page


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_class_whose_name_is_no_text(sections, language, monkeypatch, run_folder, tmp_path, capsys):
    """A folder of other bytes than UTF-8: escaped as in the terminal."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    photos = [photo | {"true": name, "photograph": replace(photo["photograph"], alt=f"photograph of {name}")}
              for photo in sections["photographs"]]
    monkeypatch.setattr("minicnn.report.build.gather", lambda *_: sections | {"photographs": photos})
    code, _, err = run(capsys, "report", str(run_folder), "--device", "reference", "--language", language, "--out",
                       str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0 and not err and 'alt="photograph of caf\\udce9"' in page and "caf\\udce9<" in page


@pytest.mark.parametrize(("file", "text", "words"), [
    ("test.json", "[]", "have it = '[]'"), ("test.json", '{"top1": "x"}', "have it.set = 'None'"),
    ("test.json", '{"set": "test", "majority": 0.5, "dense": {"loss": 1, "top1": "x"}}', "have it.dense.top1 = 'x'"),
    ("test.json", "{", "Expecting property name"), ("ledger.json", "[]", "have it = '[]'"),
    ("ledger.json", '{"rank": 0, "ranks": 2, "scheme": "x", "steps": 1, "rows": [{"sent": 1}]}', "have it.rows.0.")])
def test_damaged_files_beside_the_checkpoint(run_folder, tmp_path, file, text, words):
    shutil.copy(run_folder / "best.safetensors", tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError) as caught:
        read_run(options_of(tmp_path))
    advice = {"test.json": f"remove it; minicnn train --resume {tmp_path} evaluates the run and writes it again",
              "ledger.json": "remove it; the report then has no table of what the ranks exchanged"}[file]
    error = str(caught.value)
    assert error.startswith(f"{tmp_path / file}: ") and words in error and error.endswith(advice)


def test_a_run_whose_images_are_gone(run_folder):
    options = options_of(run_folder, data="/nowhere/at/all")
    found = gather(read_run(options), options, Words("en"))
    page = render("en", found)
    assert page.count("/nowhere/at/all does not exist") == 1 and "chart-loss" in page
    assert page.count(Words("en")("page.missing_short")) == 4
    assert found["memory"].arena > 0


def test_imported_weights(run_folder, tmp_path):
    """Nothing is claimed of how they were trained."""
    saved = load_checkpoint(run_folder / "best.safetensors")
    meta = {**saved.meta, "epoch": 0, "imported": {"format": "onnx", "lines": [], "preprocess": "assumed"}}
    save_checkpoint(tmp_path / "net.safetensors", saved.params, {}, {"mean": saved.data["mean"]}, meta)
    options = options_of(tmp_path / "net.safetensors")
    page = render("en", gather(read_run(options), options, Words("en")))
    words = Words("en")
    assert words("differs.imported") in page and words("filters.imported") in page and words("curves.none") in page
    assert words("overview.optimiser") not in page and words("filters.initial") not in page and 'id="photo-1"' in page


def test_communication_between_ranks(sections):
    rows = [{"point": "pool2", "direction": "forward", "sent": 1000, "received": 2000, "moving_ms": 0.5,
             "waiting_ms": 0.25, "hidden_ms": 0.0}]
    ledger = {"rank": 0, "ranks": 2, "scheme": "columns", "steps": 6, "rows": rows * 2}
    about = sections["about"] | {"parallel": "columns", "ranks": 2}
    assert 'id="ranks"' not in render("en", sections)
    assert Words("en")("ranks.none") in render("en", sections | {"about": about})
    page = render("ko", sections | {"about": about, "run": replace(sections["run"], ledger=ledger)})
    assert "<td>1,000</td><td>2,000</td>" in page and "<td>2,000</td><td>4,000</td>" in page and "5스텝" in page


@pytest.mark.parametrize(("change", "words"), [
    ({"--language": "de"}, "--language cannot be 'de': expected one of en, ko"),
    ({"--out": "page.txt"}, "expected the name of a file that ends in .html"),
    ({"--images": "0"}, "--images must be at least 1, got 0"),
    ({"--runs": "elsewhere"}, "expected a checkpoint, a run folder, or the name of one in elsewhere")])
def test_mistakes(capsys, run_folder, change, words):
    which = "nothing" if "--runs" in change else str(run_folder)
    code, out, err = run(capsys, "report", which, *(part for pair in change.items() for part in pair))
    assert code == 2 and not out and len(err.splitlines()) == 1 and words in err


def test_runs_that_cannot_be_read(capsys, run_folder, tmp_path):
    for name in ("without", "damaged", "metrics"):
        shutil.copytree(run_folder, tmp_path / name, ignore=shutil.ignore_patterns("report.html"))
    for file in (tmp_path / "without").glob("*.safetensors"):
        file.unlink()
    best = tmp_path / "damaged" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-100])
    (tmp_path / "metrics" / "metrics.jsonl").write_text("{broken\n")
    for name, words in (("without", "was stopped before its first checkpoint"), ("damaged", "cut short or damaged"),
                        ("metrics", "line 1: damaged")):
        code, out, err = run(capsys, "report", str(tmp_path / name), "--device", "reference")
        assert code == 2 and not out and len(err.splitlines()) == 1 and words in err, err
        assert not (tmp_path / name / "report.html").exists()


def test_a_library_that_is_not_installed(capsys, run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    code, _, err = run(capsys, "report", str(run_folder))
    assert code == 2 and "pip install 'minicnn[report]'" in err and len(err.splitlines()) == 1


@pytest.fixture
def held(rng) -> HeldOut:
    """Predictions for 40 images of 3 classes; the first 12 are wrong."""
    labels = rng.integers(0, 3, 40)
    guesses = np.where(np.arange(40) < 12, (labels + 1) % 3, labels)
    probabilities = np.full((40, 3), 0.1, np.float32)
    probabilities[np.arange(40), guesses] = np.linspace(0.5, 0.8, 40)
    return HeldOut(None, 40, "val", Evaluation(0.0, 0.7, 1.0, probabilities, labels))


def test_mistakes_are_shown_first_and_the_surest_ones(held):
    indices = shown(held)
    assert indices[:MISTAKES].tolist() == list(range(11, 11 - MISTAKES, -1))
    assert len(indices) == MISTAKES + OTHERS and (indices[MISTAKES:] >= 12).all()


def test_confusion(held):
    found = confusion(held, ["a", "b", "c"])
    assert found["counts"].sum() == 40 and np.trace(found["counts"]) == 28 and found["table"]
    for true, guess, count in found["pairs"]:
        assert guess == (true + 1) % 3 and count == ((held.found.labels == true)[:12]).sum()
    assert [share for _, share, _ in found["by_class"]] == sorted(share for _, share, _ in found["by_class"])


def test_bars_hold_the_true_class():
    probabilities = np.linspace(0.4, 0.01, 10, dtype=np.float32)[None]
    held = HeldOut(None, 1, "val", Evaluation(0.0, 0.0, 0.0, probabilities, np.array([9])))
    assert [k for k, _ in bars(held, 0)] == [0, 1, 2, 3, 9] and BARS == 5


def test_how_much_is_computed():
    assert most_images(10**6) == 2000 and 50 <= most_images(15 * 10**9) <= 100
    assert chosen(10, 20).tolist() == list(range(10)) and len(chosen(100, 20)) == 20
    x, y = thinned(list(range(10_000)), [1.0] * 10_000, 100)
    assert len(x) == len(y) == 100 and x[0] == 49.5 and set(y) == {1.0}
    assert thinned([1, 2], [3, 4]) == ([1, 2], [3, 4])


def test_pictures():
    small = picture(np.zeros((20, 10, 3), np.uint8), "small", (0, 0, 5, 5))
    large = picture(np.zeros((100, 100, 3)), "large")
    assert (small.width, small.height) == (100, 200) and small.uri.startswith("data:image/png")
    assert (large.width, large.height) == (100, 100) and large.uri.startswith("data:image/jpeg")
    sheet = mosaic([np.full((4, 4, 3), n, np.uint8) for n in (10, 20, 30)], 2, gap=1, clear=True)
    assert sheet.shape == (9, 9, 4) and sheet[0, 5].tolist() == [20, 20, 20, 255]
    assert sheet[8, 8].tolist() == [GREY, GREY, GREY, 0]
    colours = heat(np.array([[0.0, 0.5, 1.0]]), 0, 1).astype(int)
    assert (np.diff(colours.sum(axis=2)) > 0).all()


def test_timeline_in_percent():
    found = Timeline([Bar("a", "Conv2d", "forward", 0.0, 1.0), Bar("a", "Conv2d", "backward", 1.0, 3.0),
                      Bar("update", "SGD", "update", 3.0, 4.0)], 8, "cpu")
    assert found.lane("backward") == [{"name": "a", "group": "conv", "left": 25.0, "width": 50.0, "ms": 2000.0}]
    assert found.groups == ["conv", "update"] and found.table()[0] == {"name": "a", "forward": 1e3, "backward": 2e3}
