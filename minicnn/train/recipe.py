"""A training recipe as plain data: what the net is, how it starts, how images are varied, and how the weights move.

A recipe can be printed, compared and stored: the checkpoint holds it, and a run is only resumed under the recipe it was
begun with. `PAPER` is section 5 of the AlexNet paper; `differences` says in words where a recipe departs from another.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from minicnn.data.augment import Augment
from minicnn.errors import ConfigError
from minicnn.param import layer_of
from minicnn.train.schedule import Constant, Plateau, schedule_from_dict, schedule_to_dict


@dataclasses.dataclass(frozen=True)
class SGDRecipe:
    """Settings of the optimiser (minicnn/train/sgd.py), and the number of images in a batch.

    output_lr is a factor on the rate of the output layer; see `steady_output_lr`.   layer_lr: factors for other layers,
    such as {"fc6": 0.1}.
    """

    lr: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0005
    batch: int = 128
    output_lr: float = 1.0
    layer_lr: dict[str, float] = dataclasses.field(default_factory=dict)

    def lr_mults(self, net) -> dict[str, float]:
        """Parameter name -> factor on its rate. Raises ConfigError for a layer that the net does not have."""
        names = net.layers_with_weights
        if unknown := sorted(set(self.layer_lr) - set(names)):
            raise ConfigError(f"layer_lr names {unknown[0]!r}, but no layer with weights of {net.name!r} is called so; "
                              f"expected some of {', '.join(names)}")
        layers = {name: self.layer_lr.get(layer_of(name), 1.0) for name in net.params}
        return layers | {name: layers[name] * self.output_lr for name in net.output_params if name in layers}


def steady_output_lr(lr: float, classes: int, hidden: int = 4096) -> float:
    """A factor on the output layer's rate that damps the oscillation of AlexNet's first epoch; 1 for many classes.

    Biases of 1 make the hidden units h begin near 1, and dropout halves them: |h|^2 = hidden / 2. Along h the loss then
    curves with c = 2 |h|^2 p (1 - p), p = 1 / classes: 1024 for two classes, 4 for a thousand. Momentum 0.9 is stable
    while rate * c < 3.8, which the paper's 0.01 is for a thousand classes and not for two. This keeps it at 1.
    It damps and does not remove: on two classes the mean loss of the first epoch was 0.94 with it (rate 0.03) and 1.64
    without (rate 0.01), with single steps still above 1.4; learning was not shown to be better after that epoch.
    """
    curvature = hidden * (classes - 1) / classes**2
    return min(1.0, 1.0 / (lr * curvature)) if classes > 1 else 1.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides, with the seed and the data, what the weights become.

    net: how the network is built, such as {"model": "alexnet", "variant": "paper", "num_classes": 2}.
    init: departures from how that network is initialised by itself, such as {"bias": 0.1}: arguments like those in net.
    calibrate: layer -> deviation that its outputs begin with (minicnn/train/calibrate.py); empty: left as drawn.
    augment: crops, flips, colours.   sgd: rate, momentum, decay, batch.   schedule: one of minicnn/train/schedule.py.
    """

    net: dict[str, Any]
    init: dict[str, Any] = dataclasses.field(default_factory=dict)
    calibrate: dict[str, float] = dataclasses.field(default_factory=dict)
    augment: Augment = dataclasses.field(default_factory=Augment)
    sgd: SGDRecipe = dataclasses.field(default_factory=SGDRecipe)
    schedule: Constant = dataclasses.field(default_factory=Plateau)

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of what JSON can hold, so that a recipe read back equals the one that was stored."""
        return json.loads(json.dumps({
            "net": self.net, "init": self.init, "calibrate": self.calibrate,
            "augment": dataclasses.asdict(self.augment),
            "sgd": dataclasses.asdict(self.sgd), "schedule": schedule_to_dict(self.schedule)}))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; raises ConfigError for a part or a setting that does not exist."""
        parts = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - parts):
            raise ConfigError(f"a recipe has no part {unknown[0]!r}; it has {', '.join(sorted(parts))}")
        return cls(net=data["net"], init=data.get("init", {}), calibrate=data.get("calibrate", {}),
                   augment=_make(Augment, data.get("augment", {})),
                   sgd=_make(SGDRecipe, data.get("sgd", {})),
                   schedule=schedule_from_dict(data.get("schedule", {"kind": "plateau"})))


def _make(cls, settings: dict[str, Any]):
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"{cls.__name__} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"sgd": {"lr": 0.01}} -> {"sgd.lr": 0.01}."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(knob, our value, their value) wherever two recipes in dictionary form differ; None where one lacks the knob."""
    a, b = flatten(ours), flatten(theirs)
    return [(knob, a.get(knob), b.get(knob)) for knob in sorted(a.keys() | b.keys()) if a.get(knob) != b.get(knob)]


PAPER = Recipe(net={"model": "alexnet", "variant": "paper", "num_classes": 1000},
               augment=Augment(crop=224, flip=True, colour="paper"), sgd=SGDRecipe(lr=0.01, batch=128),
               schedule=Plateau())

# The knobs in words, for people; a value that has a word is replaced by it.
LABELS = {"net.num_classes": "classes", "augment.crop": "crop", "augment.flip": "mirrored left-right",
          "augment.updown": "mirrored up-down", "augment.transpose": "turned", "augment.colour": "colour shift",
          "augment.colour_std": "size of the colour shift", "sgd.lr": "rate", "sgd.batch": "batch",
          "sgd.decay": "decay", "sgd.momentum": "momentum",
          "sgd.output_lr": "factor on the last layer's rate", "schedule.kind": "schedule of the rate",
          "init.std": "weights begin with deviations", "init.bias": "biases of 1 begin as"}
LAYER_LABELS = {"sgd.layer_lr": "factor on the rate of", "calibrate": "deviation at the start of"}
WORDS = {None: "no", True: "yes", False: "no", "paper": "as printed"}


def differences_in_words(ours: Recipe, theirs: Recipe = PAPER, name: str = "paper") -> list[str]:
    """Such as "batch 32 (paper: 128)", for every knob that has a label and differs."""
    def word(value) -> str:
        if isinstance(value, list):
            return " ".join(f"{number:g}" for number in value)
        return str(WORDS.get(value, value)) if value is None or isinstance(value, bool | str) else f"{value:g}"

    said = []
    for knob, a, b in differences(ours.to_dict(), theirs.to_dict()):
        part, _, layer = knob.rpartition(".")
        label = f"{LAYER_LABELS[part]} {layer}" if part in LAYER_LABELS else LABELS.get(knob)
        if label:
            said.append(f"{label} {word(a)}" + ("" if part in (*LAYER_LABELS, "init") else f" ({name}: {word(b)})"))
    return said
