"""Images that need no files: four kinds of pattern, drawn from (seed, number).

stripes, checks, rings and dots, each at a random angle, spacing, position and pair of colours, with uneven light and
noise. Each class has a preferred colour: colour alone classifies two thirds of the images, which a net learns in its
first hundred steps; the rest takes the pattern. Flips and quarter turns turn no class into another. These images let
everything run without a download, and serve the tests; they are no benchmark.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.data.stage_times import stage
from minicnn.rng import purpose_id, uniforms

CLASSES = ("stripes", "checks", "rings", "dots")
LEANINGS = np.array([[0.65, 0.4, 0.4], [0.4, 0.65, 0.4], [0.4, 0.4, 0.65], [0.6, 0.6, 0.35]])     # RGB of 0..1
COUNTS = (1600, 320, 640)      # train, val, test


def procedural_sets(counts: tuple[int, int, int] = COUNTS, seed: int = 0, size: int = 256) -> list[Dataset]:
    """Train, validation and test set of procedural images, with the classes in turn."""
    sets, first = [], 0
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        numbers = np.arange(first, first + count)
        sets.append(Dataset(f"synthetic {part} (seed {seed})", CLASSES, numbers % len(CLASSES), numbers.tolist(),
                            partial(_drawn, seed, size), size=(size, size), ids=numbers))
        first += count
    return sets


def _drawn(seed: int, size: int, number: int) -> np.ndarray:
    with stage("decode"):
        return draw_image(seed, size, number)


def draw_image(seed: int, size: int, number: int) -> np.ndarray:
    """Image `number`, of class number % 4: uint8 (size, size, 3)."""
    purpose, kind = purpose_id("procedural"), CLASSES[number % len(CLASSES)]
    u = uniforms(seed, purpose, 0, [number], 16)[0].astype(np.float64).tolist()
    noise = uniforms(seed, purpose, 1, [number], size * size).reshape(size, size)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5                # (size, size), -0.5 .. 0.5
    angle, waves = 2 * np.pi * u[0], 2 * np.pi * (4 + 4 * u[1])                     # 4 to 8 periods across the image
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    along, across = waves * along + 2 * np.pi * u[2], waves * across + 2 * np.pi * u[3]
    if kind == "stripes":
        level = np.sin(along)
    elif kind == "checks":
        level = 2 * np.sin(along) * np.sin(across)
    elif kind == "rings":
        level = np.sin(waves * np.hypot(x - 0.8 * (u[4] - 0.5), y - 0.8 * (u[5] - 0.5)) + 2 * np.pi * u[2])
    else:
        level = 1.5 * (np.sin(along) + np.sin(across)) - 1.5
    ink = np.clip(2 * level + 0.5, 0, 1)                                           # (size, size), soft at the edges
    paper = LEANINGS[number % len(CLASSES)] + 0.5 * (np.array(u[6:9]) - 0.5)
    step = 0.3 + 0.3 * u[15] + 0.2 * (np.array(u[9:12]) - 0.5)                     # the ink is always the lighter
    light = 1 + (u[12] - 0.5) * x + (u[13] - 0.5) * y                              # brighter to one side
    image = (paper + (ink[:, :, None] - 0.5) * step) * light[:, :, None]           # (size, size, 3)
    image += (0.05 + 0.15 * u[14]) * (noise[:, :, None] - 0.5)
    return (255 * image).clip(0, 255).astype(np.uint8)
