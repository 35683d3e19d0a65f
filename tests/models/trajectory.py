"""The golden run: where twenty training steps of the reduced AlexNet begin, and what they see.

tests/vectors/make_trajectory.py lets PyTorch take these steps; tests/models/test_trajectory.py lets minicnn take them.
Everything here is drawn from minicnn.rng as uniform numbers, which are the same bits on every machine. Weights begin
three times as wide as the paper's: with its 0.01, twenty steps would not leave the flat stretch at the start.

Where two numbers in a pooling window differ by less than float32's rounding, the gradient goes one way or the other,
and the two ways part: 6 of the seeds 2012 to 2031 have such a window in their twenty steps, with any kernels. The
others end 1.3e-4 from float64. 2013 is the first of these.
"""

from __future__ import annotations

import numpy as np

from minicnn import rng

SIZES = (67, 96)        # the reduced AlexNet; and a case where conv1's last window hangs over and fc6 reads 2 x 2
STEPS, BATCH, IMAGES, CLASSES, SEED = 20, 4, 8, 2, 2013
LR, MOMENTUM, DECAY = 0.01, 0.9, 0.0005
DROPOUTS = ("drop6", "drop7")
SAMPLES = 200           # entries of a tensor whose displacement is stored


def uniform(purpose: str, *shape: int) -> np.ndarray:
    """Float64 numbers in [0, 1), a function of the purpose alone."""
    return rng.uniforms(SEED, rng.purpose_id(purpose), 0, [0], int(np.prod(shape))).reshape(shape).astype(np.float64)


def images_and_labels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(IMAGES, size, size, 3) in about -128..128, and labels: coarse blocks that are the class's own, and noise."""
    labels = np.arange(IMAGES) % CLASSES
    blocks = uniform("blocks", CLASSES, 12, 12, 3).repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    return 255 * (0.7 * blocks[labels] + 0.3 * uniform("noise", IMAGES, size, size, 3) - 0.5), labels


def initial_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights: uniform with standard deviation 0.01 (conv1) or 0.03 (others). Biases: the paper's ones and zeros."""
    layer, kind = name.split(".")
    if kind == "b":
        return np.full(shape, 1.0 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0)
    return (uniform(name, *shape) - 0.5) * np.sqrt(12) * (0.01 if layer == "conv1" else 0.03)


def batch(step: int) -> np.ndarray:
    """Which images a step sees; also their ids in the dropout masks, whose epoch is the step."""
    return (np.arange(BATCH) + step * BATCH) % IMAGES


def sampled(displacement: np.ndarray) -> np.ndarray:
    """Entries of a displacement, spread over the tensor by strides of a large prime."""
    return displacement.reshape(-1)[np.arange(min(SAMPLES, displacement.size)) * 104729 % displacement.size]
