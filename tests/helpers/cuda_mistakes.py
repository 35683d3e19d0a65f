"""Mistakes planted in CUDA sources, which the tests of their kernels must notice."""

from __future__ import annotations

from minicnn.backend.cuda import source


def plant(monkeypatch, file: str, right: str, wrong: str) -> None:
    """Until the test ends, `file` is compiled with `wrong` in place of `right`, which it must hold."""
    original = source.source
    assert right in original(file)
    monkeypatch.setattr(source, "source", lambda wanted: original(wanted).replace(right, wrong) if wanted == file
                        else original(wanted))
