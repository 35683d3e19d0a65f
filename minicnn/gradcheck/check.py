"""Gradient checking: every hand-written backward pass against finite differences of its forward pass.

For a scalar f(x) = sum(dy * layer(x)) with a random dy, the analytic gradient must equal the central difference
(f(x + h) - f(x - h)) / 2h in float64, element by element (above 500 elements: a fixed sample of them, and a few random
directions). dy is never all ones: the gradient of a softmax is then zero, and a backward that returns zeros would pass.

Kinks: if a ReLU's sign pattern or the argmax of a max-pool differs between x - h and x + h, the function is not
differentiable in between and the central difference is meaningless. The step is then repeated ten and a hundred times
smaller; an element that still straddles a kink is skipped and counted, and a tensor with more than 5 % skipped fails.
Arrays that a pass must write are passed in filled with NaN, and gradients that it must add to filled with random
numbers, so that a backward that adds where it should write, or writes where it should add, also fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minicnn.backend.ops import Ops
from minicnn.backend.select import get_ops
from minicnn.errors import ConfigError
from minicnn.gradcheck.functions import LayerFunction, NetFunction
from minicnn.layers.base import Layer

# An element passes when |analytic - numeric| <= RTOL * max(|analytic|, |numeric|) + ATOL * rms(gradient)
# + the float64 rounding error of f. Measured over cases.py: single layers stay below 5e-4 of that (rel. error 2e-8),
# networks of eight layers below 0.5, where steps must be small because there is always a ReLU's kink nearby.
RTOL, ATOL = 1e-5, 1e-7
STEPS = (1e-5, 1e-6, 1e-7)      # h in units of the tensor's rms; smaller ones near kinks and where the first one fails
MAX_SKIPPED = 0.05              # of a tensor's elements
ELEMENTWISE = 500               # tensors up to this size are checked element by element
COORDINATES, DIRECTIONS = 60, 5     # larger ones: number of sampled elements and random directions
MAX_FAILED = 10                 # wrong elements after which the check of a tensor stops
VACUOUS = "the gradient is identically zero: the check is vacuous"
TINY = float(np.finfo(float).tiny)


class GradientError(AssertionError):
    """The analytic gradient differs from the numeric one; the message is the report."""


@dataclass
class TensorCheck:
    """The result for one tensor; `where`, `analytic`, `numeric` and `error` (relative) are of the worst element."""

    name: str
    shape: tuple[int, ...]
    checked: int = 0
    skipped: int = 0
    where: str = ""
    analytic: float = 0.0
    numeric: float = 0.0
    error: float = 0.0
    ratio: float = -1.0         # error / allowed error
    failed: int = 0
    reason: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def is_vacuous(self) -> bool:
        """The gradient is identically zero, as for dead or dropped units: a failure, because nothing was tested."""
        return self.reason == VACUOUS

    def add(self, where: str, analytic: float, numeric: float, ratio: float) -> None:
        """Add the result for one element."""
        self.checked += 1
        self.failed += not ratio <= 1
        if not ratio <= self.ratio:
            self.where, self.analytic, self.numeric, self.ratio = where, analytic, numeric, ratio
            self.error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), TINY)

    def conclude(self, gradient: np.ndarray) -> None:
        """Set `reason` if the tensor fails."""
        if self.failed:
            self.reason = f"{self.failed} of {self.checked} differ"
        elif self.skipped > MAX_SKIPPED * (self.checked + self.skipped):
            self.reason = f"{self.skipped} of {self.checked + self.skipped} skipped at kinks (limit {MAX_SKIPPED:.0%})"
        elif not gradient.any():
            self.reason = VACUOUS


@dataclass
class Report:
    """The result of one check: a row per tensor, and violations of the layer interface (faults). str(): a table."""

    title: str
    rows: list[TensorCheck] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.rows) and not self.faults and all(row.ok for row in self.rows)

    @property
    def worst(self) -> TensorCheck:
        """The row that came closest to its tolerance, or exceeded it most."""
        return max(self.rows, key=lambda row: row.ratio)

    def raise_if_failed(self) -> Report:
        """Raise GradientError with the table, or return the report."""
        if not self.ok:
            raise GradientError("\n" + str(self))
        return self

    def __str__(self) -> str:
        faults = [f"  FAILED: {fault}" for fault in self.faults]
        return "\n".join([self.title, table_header(), *map(table_line, self.rows), *faults])


def table_header() -> str:
    """The first line of a report's table."""
    return (f"  {'tensor':12s}{'shape':>14s}{'checked':>9s}{'skipped':>9s}  {'worst at':<15s}{'analytic':>14s}"
            f"{'numeric':>14s}{'rel. error':>12s}")


def table_line(row: TensorCheck) -> str:
    """One tensor's line of a report's table."""
    verdict = "ok" if row.ok else f"FAILED: {row.reason}"
    return (f"  {row.name:12s}{'x'.join(map(str, row.shape)):>14s}{row.checked:9d}{row.skipped:9d}  {row.where:<15s}"
            f"{row.analytic:14.6e}{row.numeric:14.6e}{row.error:12.1e}  {verdict}")


class _Prober:
    """Central differences of a function along one element or direction of one of its tensors."""

    def __init__(self, function, name: str, gradient: np.ndarray, rtol: float, atol: float):
        self.function, self.base_masks = function, function.evaluate()[1]
        self.array = function.tensors[name]
        self.base = function.ops.to_host(self.array).copy()
        self.scale = float(np.sqrt(np.mean(self.base**2))) or 1.0
        self.rtol, self.floor = rtol, atol * float(np.sqrt(np.mean(np.nan_to_num(gradient)**2))) + TINY

    def move(self, direction: int | np.ndarray, distance: float) -> None:
        """Set the tensor to base + distance * direction; an int denotes the unit vector of that element."""
        if isinstance(direction, int):
            self.array.reshape(-1)[direction] = self.base.reshape(-1)[direction] + distance
        else:
            self.array[...] = self.function.ops.from_host(self.base + distance * direction)

    def difference(self, direction: int | np.ndarray, h: float) -> tuple[float, float] | None:
        """The directional derivative and its rounding error; None if there is a kink between x - h and x + h."""
        sides = []
        for distance in (h, -h):
            self.move(direction, distance)
            terms, masks = self.function.evaluate()
            if masks != self.base_masks:
                break
            sides.append(terms)
        self.move(direction, 0.0)
        if len(sides) < 2:
            return None
        plus, minus = sides
        rounding = 8 * np.finfo(float).eps * np.sqrt(np.sum(plus**2) + np.sum(minus**2))
        return float(np.sum(plus - minus)) / (2 * h), float(rounding) / (2 * h)

    def compare(self, row: TensorCheck, where: str, direction: int | np.ndarray, analytic: float) -> None:
        """Add one element or direction to the row, with the step size that agrees best."""
        best = None
        for step in STEPS:
            found = self.difference(direction, step * self.scale)
            if found is None:
                continue
            numeric, rounding = found
            allowed = self.rtol * max(abs(analytic), abs(numeric)) + self.floor + rounding
            ratio = abs(analytic - numeric) / allowed if np.isfinite(analytic) else np.inf
            if best is None or ratio < best[1]:
                best = numeric, ratio
            if ratio <= 1:
                break
        if best is None:
            row.skipped += 1
        else:
            row.add(where, analytic, *best)


def _probes(gradient: np.ndarray, generator, elementwise: int, coordinates: int):
    """The elements and directions to check: (name, element or direction, analytic derivative)."""
    everything = gradient.size <= elementwise
    elements = range(gradient.size) if everything else generator.choice(gradient.size, coordinates, replace=False)
    for i in map(int, elements):
        index = ",".join(map(str, np.unravel_index(i, gradient.shape)))
        yield f"[{index}]", i, float(gradient.reshape(-1)[i])
    for d in range(0 if everything else DIRECTIONS):
        direction = generator.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        yield f"direction {d}", direction, float(np.sum(gradient * direction))


def _check(function, title: str, seed: int, only, rtol: float, atol: float, elementwise: int,
           coordinates: int, on_row: Callable[[TensorCheck], None] | None) -> Report:
    generator = np.random.default_rng([seed, 1])
    report = Report(title)
    gradients = function.gradients(generator, report.faults)
    for name in only or gradients:
        if name not in gradients:
            raise ConfigError(f"gradient check: no tensor {name!r}; expected one of {', '.join(gradients)}")
        gradient = gradients[name]
        row, prober = TensorCheck(name, gradient.shape), _Prober(function, name, gradient, rtol, atol)
        for where, direction, analytic in _probes(gradient, generator, elementwise, coordinates):
            if row.failed < MAX_FAILED:
                prober.compare(row, where, direction, analytic)
        row.conclude(gradient)
        report.rows.append(row)
        if on_row:
            on_row(row)
    return report


def check_layer(layer: Layer, in_shapes=None, *, ops: Ops | None = None, seed: int = 0, train: bool = True,
                relu: bool = False, xs=None, labels=None, only=None, rtol: float = RTOL, atol: float = ATOL,
                elementwise: int = ELEMENTWISE, coordinates: int = COORDINATES) -> Report:
    """Check the gradients of one layer with respect to every input and parameter, at random parameters.

    in_shapes: the shape of each input, batch axis included.   relu: with a fused ReLU.
    xs: input values, by default normal.   labels: for a loss layer, by default random.   only: names of tensors.
    elementwise, coordinates: as in check_net.
    Returns a Report; `check_layer(...).raise_if_failed()` in tests.
    """
    ops = get_ops("reference") if ops is None else ops
    if xs is None and in_shapes is None:
        raise ConfigError("gradient check of a layer: give in_shapes, a list with one shape per input, or xs")
    in_shapes = [tuple(shape) for shape in (in_shapes if xs is None else [np.shape(x) for x in xs])]
    function = LayerFunction(layer, in_shapes, ops, np.random.default_rng([seed, 0]), train, relu, xs, labels)
    shapes = " + ".join("x".join(map(str, shape)) for shape in in_shapes)
    title = f"{layer!r}{' + ReLU' if relu else ''}{'' if train else ', test mode'} on {shapes}, {ops.name}"
    return _check(function, title, seed, only, rtol, atol, elementwise, coordinates, None)


def check_net(net, x, labels=None, *, seed: int = 0, train: bool = True, only=None, rtol: float = RTOL,
              atol: float = ATOL, elementwise: int = ELEMENTWISE, coordinates: int = COORDINATES,
              on_row: Callable[[TensorCheck], None] | None = None) -> Report:
    """Check the gradients of a network (dtype float64) with respect to its input and every parameter, at their
    current values.

    x: the images, or a dict of arrays for a network of several inputs.
    labels: check the training loss; if None, a random weighted sum of the logits.   only: names such as "conv1.w".
    elementwise: size up to which every element is checked.   coordinates: elements sampled above it.
    on_row: called with each finished row, to show progress.
    """
    if str(net.dtype) != "float64":
        raise ConfigError(f"gradient check: the network must be made with dtype='float64', got {net.dtype}")
    function = NetFunction(net, x, labels, np.random.default_rng([seed, 0]), train)
    shapes = " + ".join("x".join(map(str, array.shape)) for array in function.inputs.values())
    title = f"network {net.name!r} on {shapes}, {net.ops.name}"
    return _check(function, title, seed, only, rtol, atol, elementwise, coordinates, on_row)
