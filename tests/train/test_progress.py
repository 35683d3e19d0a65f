"""What is seen of a run: lines where there is no terminal."""

from __future__ import annotations

from minicnn.train.progress import Progress, duration


def test_compiling_is_said_once(capsys):
    progress = Progress("epoch 1/3", 10, 0, 20, batch=32)
    for kernel in ("linear._forward", "lrn._forward"):
        progress.compiling(kernel)
    assert capsys.readouterr().out == "epoch 1/3  compiling kernels, once, for they are kept on disk\n"
    Progress("epoch 2/3", 10, 0, 10, batch=32, show=False).compiling("lrn._forward")
    assert not capsys.readouterr().out


def test_duration():
    assert [duration(seconds) for seconds in (5.4, 65, 7390)] == ["0:05", "1:05", "2:03:10"]
