"""Progress of a pass over images where there is no terminal: a line now and then; on one, a bar from the beginning."""

from __future__ import annotations

import sys

import pytest

from minicnn.system import progress as module
from minicnn.system.progress import duration, progress_of


def test_duration():
    assert [duration(seconds) for seconds in (5.4, 65, 7390)] == ["0:05", "1:05", "2:03:10"]


@pytest.mark.parametrize(("batch", "line"), [(40.0, "80 of 200 images, 2 images/s, 1:00 left"),
                                             (7.5, "15 of 200 images, 0.38 images/s, 8:13 left")])
def test_a_line_every_30_seconds(monkeypatch, capsys, batch, line):
    clock = iter([100.0, 120.0, 140.0, 150.0, 169.0])
    monkeypatch.setattr(module, "time", type("Clock", (), {"perf_counter": lambda: next(clock)}))
    with progress_of("test, dense", 200) as seen:
        for _ in range(4):
            seen(batch)
    assert capsys.readouterr().out == f"test, dense  {line}\n"


def test_silence(capsys):
    with progress_of("test", 4, show=False) as seen:
        seen(4)
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_there_before_the_first_image(monkeypatch, capsys):
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_of("test", 2000) as seen:
        assert "0 of 2,000 images" in capsys.readouterr().err
        seen(1999.6)
    assert not capsys.readouterr().out
