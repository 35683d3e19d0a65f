"""Learning rate schedules: the base learning rate times a factor.

`factor(progress)` is called before every step, with the progress in epochs (2.5 = half of the third epoch is done);
`epoch_done(error, epoch)` after every epoch, with the validation error and the number of epochs done. The paper's own
rule is `Plateau`: divide by ten when the validation error stops improving, three times in all. What a schedule has seen
so far is its `state`, which a checkpoint keeps; everything else about it is plain data.

Every schedule may begin with a warm-up, at whose end it is continuous: the factor rises to the one that the schedule
has there. What comes after it counts as follows.

    Cosine, Polynomial, OneCycle    `epochs` includes the warm-up; the curve covers the rest of them
    StepDecay, ExponentialDecay     their epochs are counted from the beginning of the run, as printed in most recipes
    Plateau                         epochs that end within the warm-up, or with it, are not looked at

Momentum is constant in all of them.
"""

from __future__ import annotations

import dataclasses
import math
import numbers

from minicnn.errors import ConfigError, expected, rounded


def _number(default, wanted: str, holds, **options):
    """A setting that must be finite and satisfy `holds`; `wanted` says so in an error."""
    def allowed(value) -> bool:
        return (isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
                and holds(value))

    return dataclasses.field(default=default, metadata={"wanted": wanted, "allowed": allowed}, **options)


def _choice(default, *values, **options):
    """A setting that must be one of a few values."""
    return dataclasses.field(default=default, metadata={
        "wanted": f"one of {', '.join(map(str, values))}",
        "allowed": lambda value: any(value is known or value == known and isinstance(value, str) for known in values),
    }, **options)


def _epochs(count: float) -> str:
    return f"{rounded(count)} epoch{'' if count == 1 else 's'}"


def _positive(default):
    return _number(default, "a positive number", lambda value: value > 0)


def _whole(default, least: int):
    return _number(default, f"a whole number of at least {least}", lambda value: value == int(value) >= least)


@dataclasses.dataclass
class Constant:
    """The same learning rate throughout; the base of the others.

    warmup: epochs in which the factor rises linearly, from `warmup_start` times the one at the end of the warm-up. From
    the default of 0 on, no factor is below 0.01, so that the first steps do something.
    warmup_shape: "linear", or "constant" for `warmup_start` throughout the warm-up.
    A setting outside its range raises ConfigError, here and in all others.
    """

    warmup: float = _number(0.0, "0 or more epochs", lambda epochs: epochs >= 0, kw_only=True)
    warmup_start: float = _number(0.0, "a factor from 0 to 1", lambda factor: 0 <= factor <= 1, kw_only=True)
    warmup_shape: str = _choice("linear", "linear", "constant", kw_only=True)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if allowed := field.metadata.get("allowed"):
                self._require(allowed(getattr(self, field.name)), field.name, field.metadata["wanted"])
        self._require(self.warmup_shape == "linear" or self.warmup_start > 0, "warmup_start",
                      "positive for a constant warm-up")

    def _require(self, holds: bool, setting: str, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"schedule {type(self).__name__}: {setting} must be {wanted}, got "
                              f"{getattr(self, setting)!r}")

    def factor(self, progress: float) -> float:
        """The factor on the learning rate of a step, after `progress` epochs."""
        return self._warming(progress) * self._after_warmup(max(progress, self.warmup))

    def _warming(self, progress: float) -> float:
        if progress >= self.warmup:
            return 1.0
        if self.warmup_shape == "constant":
            return self.warmup_start
        rising = self.warmup_start + (1.0 - self.warmup_start) * (progress / self.warmup)
        return rising if self.warmup_start else max(rising, 0.01)

    def _after_warmup(self, progress: float) -> float:
        return 1.0

    def epoch_done(self, error: float, epoch: int) -> None:
        """`epoch` epochs are done; `error` is that of the validation after them."""

    def stretched(self, to: int, of: int, **settings):
        """The schedule for a run of `to` epochs, where this one is for `of`; its state is a fresh one."""
        return dataclasses.replace(self, warmup=to * self.warmup / of, **settings)

    def in_words(self) -> str:
        """Such as "cosine over 10 epochs, with 1 epoch of warm-up from 0"."""
        at = "at" if self.warmup_shape == "constant" else "from"
        warmup = f", with {_epochs(self.warmup)} of warm-up {at} {self.warmup_start:g}" if self.warmup else ""
        return self._words() + warmup

    def _words(self) -> str:
        return "constant"

    @property
    def state(self) -> dict:
        return {}

    @state.setter
    def state(self, state: dict) -> None:
        pass


@dataclasses.dataclass
class StepDecay(Constant):
    """Multiply the learning rate by `by` at the beginning of each epoch in `epochs` (counted from 0)."""

    epochs: tuple[float, ...] = dataclasses.field(default=(30, 60), metadata={
        "wanted": "a list of epochs, each 0 or more",
        "allowed": lambda epochs: isinstance(epochs, tuple | list) and all(
            isinstance(epoch, numbers.Real) and epoch >= 0 for epoch in epochs)})
    by: float = _positive(0.1)

    def __post_init__(self):
        super().__post_init__()
        self.epochs = tuple(self.epochs)                    # so that one read back is equal

    def _after_warmup(self, progress: float) -> float:
        return self.by ** sum(progress >= epoch for epoch in self.epochs)

    def stretched(self, to: int, of: int):
        return super().stretched(to, of, epochs=tuple(to * epoch / of for epoch in self.epochs))

    def _words(self) -> str:
        return f"step, times {self.by:g} at epochs {' '.join(map(rounded, self.epochs)) or 'none'}"


@dataclasses.dataclass
class ExponentialDecay(Constant):
    """Multiply the learning rate by `by` after each `every` epochs. GoogLeNet: by=0.96, every=8."""

    by: float = _positive(0.95)
    every: float = _positive(1.0)

    def _after_warmup(self, progress: float) -> float:
        return self.by ** math.floor(progress / self.every + 1e-9)      # 0.6 / 0.2 is a little less than 3

    def stretched(self, to: int, of: int):
        return super().stretched(to, of, every=to * self.every / of)

    def _words(self) -> str:
        return f"exponential, times {self.by:g} every {_epochs(self.every)}"


@dataclasses.dataclass
class OverEpochs(Constant):
    """A base of schedules that last for `epochs` epochs, warm-up included, and keep their last factor after them."""

    epochs: float = _number(3, "0 or more epochs", lambda epochs: epochs >= 0)

    def __post_init__(self):
        super().__post_init__()
        self._require(self.warmup <= self.epochs, "warmup", f"at most the {self.epochs:g} epochs of the schedule")

    def _after_warmup(self, progress: float) -> float:
        return self._curve(min((progress - self.warmup) / max(self.epochs - self.warmup, 1e-9), 1.0))

    def stretched(self, to: int, of: int):
        return super().stretched(to, of, epochs=to)


@dataclasses.dataclass
class Cosine(OverEpochs):
    """Half a cosine from 1 down to `floor` over `epochs` (SGDR without restarts, arXiv 1608.03983); then `floor`.

    Not the paper's, but good for runs of a few epochs.
    """

    floor: float = _number(0.0, "a factor from 0 to 1", lambda factor: 0 <= factor <= 1)

    def _curve(self, done: float) -> float:
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))

    def _words(self) -> str:
        return f"cosine over {_epochs(self.epochs)}" + (f" to {self.floor:g}" if self.floor else "")


@dataclasses.dataclass
class Polynomial(OverEpochs):
    """(1 - done)^power, with the part of `epochs` that is done: Caffe's "poly"; linear to 0 where power is 1."""

    power: float = _positive(1.0)

    def _curve(self, done: float) -> float:
        return (1.0 - done) ** self.power

    def _words(self) -> str:
        return f"polynomial of power {self.power:g} over {_epochs(self.epochs)}"


@dataclasses.dataclass
class OneCycle(OverEpochs):
    """Up from 1 / div_factor to 1, then down to 1 / (div_factor * final_div_factor) (arXiv 1708.07120).

    pct_start: after which part of the epochs the factor is 1.   anneal: "cos" or "linear", the form of each phase.
    three_phase: down to 1 / div_factor first, in as many epochs as up; then on to the last factor.
    The settings are those of PyTorch's OneCycleLR, whose max_lr is the learning rate here; momentum is not cycled.
    PyTorch reaches the ends of the phases one step earlier, so that the very last step has the last factor.
    """

    pct_start: float = _number(0.3, "between 0 and 1, both excluded", lambda part: 0 < part < 1)
    div_factor: float = _positive(25.0)
    final_div_factor: float = _positive(1e4)
    anneal: str = _choice("cos", "cos", "linear")
    three_phase: bool = _choice(False, False, True)

    def __post_init__(self):
        super().__post_init__()
        self._require(not self.three_phase or self.pct_start < 0.5, "pct_start", "below 0.5 in three phases")

    def _points(self) -> list[tuple[float, float]]:
        """(part of the epochs, factor) where the phases begin and end."""
        start, last = 1.0 / self.div_factor, 1.0 / self.div_factor / self.final_div_factor
        back = [(2.0 * self.pct_start, start)] if self.three_phase else []
        return [(0.0, start), (self.pct_start, 1.0), *back, (1.0, last)]

    def _curve(self, done: float) -> float:
        points = self._points()
        (begin, a), (end, b) = next(phase for phase in zip(points, points[1:], strict=False) if done <= phase[1][0])
        part = (done - begin) / (end - begin)
        return b + (a - b) * (1.0 - part if self.anneal == "linear" else 0.5 * (1.0 + math.cos(math.pi * part)))

    def _words(self) -> str:
        points = ", ".join(f"{factor:.3g} at {100 * part:g} %" for part, factor in self._points())
        return f"one cycle over {_epochs(self.epochs)} ({self.anneal}: {points})"


@dataclasses.dataclass
class Plateau(Constant):
    """Multiply the learning rate by `by` when the validation error has not improved for `patience` epochs; at most
    `times` times. PyTorch's ReduceLROnPlateau counts one more: its patience is this one minus 1."""

    by: float = _positive(0.1)
    patience: int = _whole(3, 1)
    times: int = _whole(3, 0)

    def __post_init__(self):
        super().__post_init__()
        self._best, self._waited, self._drops = math.inf, 0, 0

    def _after_warmup(self, progress: float) -> float:
        return self.by ** self._drops

    def epoch_done(self, error: float, epoch: int) -> None:
        if epoch <= self.warmup:
            return
        if error < self._best:
            self._best, self._waited = error, 0
            return
        self._waited += 1
        if self._waited >= self.patience and self._drops < self.times:
            self._drops, self._waited = self._drops + 1, 0

    def _words(self) -> str:
        return (f"plateau, times {self.by:g} after {_epochs(self.patience)} without improvement, {self.times} times at "
                "most")

    @property
    def state(self) -> dict:
        return {"best": None if math.isinf(self._best) else self._best, "waited": self._waited, "drops": self._drops}

    @state.setter
    def state(self, state: dict) -> None:
        self._best = math.inf if state["best"] is None else state["best"]
        self._waited, self._drops = state["waited"], state["drops"]


SCHEDULES = {"constant": Constant, "step": StepDecay, "plateau": Plateau, "cosine": Cosine, "onecycle": OneCycle,
             "polynomial": Polynomial, "exponential": ExponentialDecay}
USUAL_EPOCHS = 90                           # of a run for which the defaults of StepDecay and ExponentialDecay are made


def _kind(schedule) -> str:
    """Its name in SCHEDULES."""
    for name, kind in SCHEDULES.items():
        if kind is type(schedule):
            return name
    raise ConfigError(f"{type(schedule).__name__} is no schedule that a recipe can hold: expected one of "
                      + ", ".join(kind.__name__ for kind in SCHEDULES.values()))


def schedule_for(kind: str, epochs: int):
    """The schedule of this kind with its default settings, for a run of so many epochs; StepDecay: at 1/3 and 2/3."""
    return schedule_from_dict({"kind": kind}).stretched(epochs, USUAL_EPOCHS)


def schedule_to_dict(schedule) -> dict:
    """The schedule as plain data: {"kind": "plateau", "by": 0.1, ...}; without its state."""
    return {"kind": _kind(schedule), **dataclasses.asdict(schedule)}


def schedule_from_dict(data: dict):
    """The inverse of `schedule_to_dict`. ConfigError for a kind or a setting that does not exist or is invalid."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in SCHEDULES:
        raise ConfigError(f"unknown schedule {kind!r}: {expected(str(kind), SCHEDULES)}")
    known = [field.name for field in dataclasses.fields(SCHEDULES[kind])]
    if unknown := sorted(set(fields) - set(known)):
        raise ConfigError(f"schedule {kind!r} has no setting {unknown[0]!r}: {expected(unknown[0], known)}")
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return SCHEDULES[kind](**settings)
