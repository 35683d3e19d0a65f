"""Writes procedural.npz: eight drawn patterns, each as the means of 6 x 6 squares of it."""

from pathlib import Path

import numpy as np

from minicnn.data.procedural import draw_image


def squares(number: int) -> np.ndarray:
    """Image `number` of seed 5, 36 x 36, as (6, 6, 3): mean grey levels."""
    return draw_image(5, 36, number).reshape(6, 6, 6, 6, 3).mean(axis=(1, 3))


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("procedural.npz"), squares=np.stack([squares(i) for i in range(8)]))
