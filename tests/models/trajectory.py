"""The reference trajectory: initial weights and data of twenty training steps of the reduced AlexNet.

tests/vectors/make_trajectory.py runs these steps in PyTorch; tests/models/test_trajectory.py runs them in minicnn.
All values are uniform numbers from minicnn.rng, bit-identical on every machine. The standard deviation of the weights
is three times the paper's: with its 0.01, the loss would still be on its initial plateau after twenty steps.

If two values in a pooling window differ by less than float32's rounding error, the argmax may differ and the two runs
diverge: 6 of the seeds 2012 to 2031 have such a window in their twenty steps, with any kernels. The other runs end
1.3e-4 from float64; 2013 is the first of these seeds.
"""

from __future__ import annotations

import numpy as np

from minicnn import rng

SIZES = (67, 96)        # the reduced AlexNet; and a case where conv1's last window passes the edge and fc6 reads 2 x 2
STEPS, BATCH, IMAGES, CLASSES, SEED = 20, 4, 8, 2, 2013
LR, MOMENTUM, DECAY = 0.01, 0.9, 0.0005
DROPOUTS = ("drop6", "drop7")
SAMPLES = 200           # elements of a tensor whose displacement is stored


def uniform(purpose: str, *shape: int) -> np.ndarray:
    """Float64 uniform in [0, 1), a function of the purpose only."""
    return rng.uniforms(SEED, rng.purpose_id(purpose), 0, [0], int(np.prod(shape))).reshape(shape).astype(np.float64)


def images_and_labels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """(IMAGES, size, size, 3) in about -128..128, and labels: coarse blocks specific to the class, plus noise."""
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
    """Indices of the images of a step; also their sample ids for dropout, whose epoch is the step."""
    return (np.arange(BATCH) + step * BATCH) % IMAGES


def sampled(displacement: np.ndarray) -> np.ndarray:
    """Elements of a displacement, spread over the tensor with a large prime stride."""
    return displacement.reshape(-1)[np.arange(min(SAMPLES, displacement.size)) * 104729 % displacement.size]
