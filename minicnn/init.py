"""Weight initialisation. An initialiser is called with (seed, name, shape, dtype) and returns a NumPy array.

Each array depends only on the seed and its name, so that other layers do not change it. Weights are (R, S,
C/groups, K) for a convolution and (in, out) for a fully connected layer:

    fan in = R * S * C/groups, or in          fan out = R * S * K, or out

The standard deviation is scaled by these, so that activations (He), or activations and gradients (Glorot), keep their
variance from layer to layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from minicnn.errors import ConfigError
from minicnn.rng import normal_init, uniform_init


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out) of weights (..., in, out)."""
    if len(shape) < 2:
        raise ConfigError(f"He and Glorot initialise weights (..., in, out), got the shape {tuple(shape)}; use Normal, "
                          "Uniform or a constant for one-dimensional arrays")
    window = prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def draw(distribution: str, std: float, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Draw from the normal or uniform distribution with mean 0 and this standard deviation."""
    if distribution == "normal":
        return normal_init(seed, name, shape, std, dtype)
    return uniform_init(seed, name, shape, sqrt(3.0) * std, dtype)


def _one_of(what: str, value: str, *known: str) -> None:
    if value not in known:
        raise ConfigError(f"{what} must be one of {', '.join(known)}, got {value!r}")


@dataclass(frozen=True)
class Normal:
    """Weights from N(0, std); the AlexNet paper uses std = 0.01 in every layer (section 5)."""

    std: float = 0.01

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        return normal_init(seed, name, shape, self.std, dtype)


@dataclass(frozen=True)
class Uniform:
    """Values from U(-bound, bound)."""

    bound: float

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        return uniform_init(seed, name, shape, self.bound, dtype)


@dataclass(frozen=True)
class He:
    """Standard deviation `sqrt(2 / ((1 + slope^2) * fan))`, for layers before a ReLU with this negative slope (He et
    al., "Delving deep into rectifiers", ICCV 2015, equations 10 and 14).   fan: "in" or "out".
    distribution: "normal" or "uniform"."""

    fan: str = "in"
    distribution: str = "normal"
    slope: float = 0.0

    def __post_init__(self):
        _one_of("He: fan", self.fan, "in", "out")
        _one_of("He: distribution", self.distribution, "normal", "uniform")

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        fan = fans(shape)[self.fan == "out"]
        return draw(self.distribution, sqrt(2.0 / ((1.0 + self.slope**2) * fan)), seed, name, shape, dtype)


@dataclass(frozen=True)
class Glorot:
    """Standard deviation gain * sqrt(2 / (fan in + fan out)) (Glorot and Bengio, "Understanding the difficulty of
    training deep feedforward neural networks", AISTATS 2010, equation 16); also called Xavier."""

    distribution: str = "uniform"
    gain: float = 1.0

    def __post_init__(self):
        _one_of("Glorot: distribution", self.distribution, "normal", "uniform")

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        return draw(self.distribution, self.gain * sqrt(2.0 / sum(fans(shape))), seed, name, shape, dtype)


@dataclass(frozen=True)
class Dirac:
    """Of a convolution: filter k < C/groups passes channel k on unchanged, as torch.nn.init.dirac_ has it; the others
    are from U(-1/sqrt(fan in), 1/sqrt(fan in)), PyTorch's default."""

    def __call__(self, seed: int, name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
        if len(shape) != 4:
            raise ConfigError(f"Dirac initialises weights of convolutions, (R, S, C, K), got the shape {tuple(shape)}; "
                              "use another initialiser, such as He")
        weights = uniform_init(seed, name, shape, fans(shape)[0] ** -0.5, dtype)
        R, S, C, K = shape
        weights[..., :C] = 0
        passed = np.arange(min(C, K))
        weights[R // 2, S // 2, passed, passed] = 1
        return weights


INITIALISERS = {kind.__name__: kind for kind in (Normal, Uniform, He, Glorot, Dirac)}
