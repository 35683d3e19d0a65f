"""`minicnn train` in a second or two: 24 images, a net of two layers."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.small_run import save_tree

NET = """
from minicnn.builder import Builder

def build(num_classes=2, device="auto", seed=0):
    b = Builder((32, 32, 3), name="tiny")
    b.conv("conv1", 4, 5, stride=4)
    b.flatten()
    b.linear("fc2", num_classes)
    b.loss()
    return b.net(seed=seed, device=device)
"""


def tiny_set(root: Path) -> None:
    """root/set, and root/own.py with a net for it."""
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        save_tree(root / "set" / part, per_class=count, size=48)
    (root / "own.py").write_text(NET)


def tiny_command(root: Path, *more: str) -> list[str]:
    """The arguments of `minicnn`."""
    return ["train", f"{root / 'own.py'}:build", "--data", f"{root / 'set'}", "--batch", "4", "--epochs", "2",
            "--out", f"{root / 'runs'}", *more]
