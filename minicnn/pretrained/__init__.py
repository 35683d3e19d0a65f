"""A small trained network and sample images that come with the package; README.md says how they were made.

Wherever a run or a checkpoint to read is named, the word `pretrained` is this network.
"""

from __future__ import annotations

from pathlib import Path

WORD = "pretrained"
CHECKPOINT = Path(__file__).with_name("airbench94.safetensors")
SAMPLES = Path(__file__).with_name("samples")          # images that scenes.py has drawn


def sample_files() -> list[str]:
    """Paths of the sample images."""
    return sorted(map(str, SAMPLES.glob("*.png")))
