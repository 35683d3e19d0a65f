"""Learning rate schedules: the base learning rate times a factor.

`factor(progress)` is called before every step, with the progress in epochs (2.5 = half of the third epoch is done);
`epoch_done(error)` after every epoch, with the validation error. The paper's own rule is `Plateau`: divide by ten when
the validation error stops improving, three times in all. What a schedule has seen so far is its `state`, which a
checkpoint keeps; everything else about it is plain data.
"""

from __future__ import annotations

import dataclasses
import math

from minicnn.errors import ConfigError, expected


@dataclasses.dataclass
class Constant:
    """The same learning rate throughout; the base of the others."""

    def factor(self, progress: float) -> float:
        return 1.0

    def epoch_done(self, error: float) -> None:
        pass

    @property
    def state(self) -> dict:
        return {}

    @state.setter
    def state(self, state: dict) -> None:
        pass


@dataclasses.dataclass
class StepDecay(Constant):
    """Multiply the learning rate by `by` at the beginning of each epoch in `epochs` (counted from 0)."""

    epochs: tuple[int, ...] = (30, 60)
    by: float = 0.1

    def factor(self, progress: float) -> float:
        return self.by ** sum(progress >= epoch for epoch in self.epochs)


@dataclasses.dataclass
class Cosine(Constant):
    """Half a cosine from 1 down to `floor` over `epochs` (SGDR without restarts, arXiv 1608.03983); then `floor`.

    `warmup` epochs before it rise linearly to 1. Not the paper's, but good for runs of a few epochs.
    """

    epochs: float = 3
    floor: float = 0.0
    warmup: float = 0.0

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return max(progress / self.warmup, 0.01)
        done = min((progress - self.warmup) / max(self.epochs - self.warmup, 1e-9), 1.0)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclasses.dataclass
class Plateau(Constant):
    """Multiply the learning rate by `by` when the validation error has not improved for `patience` epochs; at most
    `times` times."""

    by: float = 0.1
    patience: int = 3
    times: int = 3

    def __post_init__(self):
        self._best, self._waited, self._drops = math.inf, 0, 0

    def factor(self, progress: float) -> float:
        return self.by ** self._drops

    def epoch_done(self, error: float) -> None:
        if error < self._best:
            self._best, self._waited = error, 0
            return
        self._waited += 1
        if self._waited >= self.patience and self._drops < self.times:
            self._drops, self._waited = self._drops + 1, 0

    @property
    def state(self) -> dict:
        return {"best": None if math.isinf(self._best) else self._best, "waited": self._waited, "drops": self._drops}

    @state.setter
    def state(self, state: dict) -> None:
        self._best = math.inf if state["best"] is None else state["best"]
        self._waited, self._drops = state["waited"], state["drops"]


SCHEDULES = {"constant": Constant, "step": StepDecay, "plateau": Plateau, "cosine": Cosine}


def schedule_to_dict(schedule) -> dict:
    """The schedule as plain data: {"kind": "plateau", "by": 0.1, ...}; without its state."""
    kind = next(name for name, kind in SCHEDULES.items() if kind is type(schedule))
    return {"kind": kind, **dataclasses.asdict(schedule)}


def schedule_from_dict(data: dict):
    """The inverse of `schedule_to_dict`."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in SCHEDULES:
        raise ConfigError(f"unknown schedule {kind!r}: {expected(str(kind), SCHEDULES)}")
    known = [field.name for field in dataclasses.fields(SCHEDULES[kind])]
    if unknown := sorted(set(fields) - set(known)):
        raise ConfigError(f"schedule {kind!r} has no setting {unknown[0]!r}: "
                          + (expected(unknown[0], known) if known else "expected none"))
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return SCHEDULES[kind](**settings)
