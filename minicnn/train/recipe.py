"""A training recipe as plain data: the network, its initialisation, preprocessing, augmentation, optimiser, schedule.

A recipe can be printed, compared and stored: the checkpoint holds it, and a run is only resumed with the recipe that it
was started with. `PAPER` is section 5 of the AlexNet paper; `differences` says where a recipe departs from another.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar

from minicnn.data.augment import Augment
from minicnn.data.dataset import Dataset
from minicnn.data.preprocess import Preprocess
from minicnn.errors import ConfigError, expected
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.param import layer_of
from minicnn.shapes import finite
from minicnn.train.adam import Adam, AdamW
from minicnn.train.average import WeightAverage
from minicnn.train.lookahead import LookaheadRecipe
from minicnn.train.optimiser import Optimiser
from minicnn.train.schedule import Constant, Plateau, schedule_from_dict, schedule_to_dict
from minicnn.train.sgd import SGD


class OptimiserRecipe:
    """What the recipes of all optimisers share: `lr`, the learning rate; `decay`, the weight decay; and

    batch: images in a batch.   output_lr: a factor on the learning rate of the output layer; see `steady_output_lr`.
    layer_lr: factors for other layers, such as {"fc6": 0.1}, or for a parameter, such as {"fc6.w": 0.1}; those of
    factor 0 are frozen.   norm_decay: the weight decay of batch normalisation's scales and shifts, such as 0; None:
    `decay`.   bias_lr: a factor for biases, whose weight decay is divided by it, so that a step decays them by as much.
    ConfigError for values that the optimiser refuses.
    """

    OPTIMISER: ClassVar[type[Optimiser]]

    def __post_init__(self):
        if not finite(self.bias_lr, "bias_lr") > 0:
            raise ConfigError(f"bias_lr, the factor on biases' learning rate, must be positive, not {self.bias_lr}")
        self.OPTIMISER({}, **self._own(), decays={} if self.norm_decay is None else {"norm": self.norm_decay})

    def make(self, net) -> Optimiser:
        """The optimiser of this network. Raises ConfigError for a layer that the net does not have."""
        return self.OPTIMISER(net, lr_mults=self.lr_mults(net), decays=self.decays(net), **self._own())

    def _own(self) -> dict[str, Any]:
        """The arguments that the optimiser has of its own."""
        shared = ("batch", "output_lr", "layer_lr", "norm_decay", "bias_lr")
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in shared}

    def decays(self, net) -> dict[str, float]:
        """Parameter name -> weight decay, of those that have one of their own."""
        norms = {node.name for node in net.nodes if isinstance(node.layer, BatchNorm2d)}
        norm_decay = self.decay if self.norm_decay is None else self.norm_decay
        found = {name: norm_decay if layer_of(name) in norms else self.decay for name in net.params}
        found |= {name: decay / self.bias_lr for name, decay in found.items() if is_bias(name)}
        return {name: decay for name, decay in found.items() if decay != self.decay}

    def lr_mults(self, net) -> dict[str, float]:
        """Parameter name -> factor on its learning rate. Raises ConfigError for a layer that the net does not have."""
        names = net.layers_with_weights
        here = {layer_of(name) for name in net.params}              # other ranks may hold other layers
        elsewhere = {name for name in self.layer_lr if layer_of(name) in names and layer_of(name) not in here}
        if unknown := sorted(set(self.layer_lr) - {*names, *net.params} - elsewhere):
            raise ConfigError(f"layer_lr names {unknown[0]!r}, but no layer with weights or parameter of {net.name!r} "
                              f"is called so; expected some of {', '.join(names)}, or parameters such as {names[0]}.w")
        layers = {name: self.layer_lr.get(name, self.layer_lr.get(layer_of(name), 1.0))
                  * (self.bias_lr if is_bias(name) else 1.0) for name in net.params}
        return layers | {name: layers[name] * self.output_lr for name in net.output_params if name in layers}


@dataclasses.dataclass(frozen=True)
class SGDRecipe(OptimiserRecipe):
    """Settings of minicnn/train/sgd.py, which explains momentum and the form of the update."""

    OPTIMISER = SGD
    lr: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0005
    batch: int = 128
    output_lr: float = 1.0
    layer_lr: dict[str, float] = dataclasses.field(default_factory=dict)
    lr_in_velocity: bool = True
    nesterov: bool = False
    decoupled: bool = False
    norm_decay: float | None = None
    filter_rms: float | None = None
    bias_lr: float = 1.0


@dataclasses.dataclass(frozen=True)
class AdamRecipe(OptimiserRecipe):
    """Settings of minicnn/train/adam.py."""

    OPTIMISER = Adam
    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 0.0
    batch: int = 128
    output_lr: float = 1.0
    layer_lr: dict[str, float] = dataclasses.field(default_factory=dict)
    norm_decay: float | None = None
    bias_lr: float = 1.0


@dataclasses.dataclass(frozen=True)
class AdamWRecipe(AdamRecipe):
    """Settings of AdamW, whose weight decay is decoupled."""

    OPTIMISER = AdamW
    decay: float = 0.01


OPTIMISERS: dict[str, type[OptimiserRecipe]] = {"sgd": SGDRecipe, "adam": AdamRecipe, "adamw": AdamWRecipe}


def optimiser_from_dict(data: dict[str, Any]) -> OptimiserRecipe:
    """From {"kind": "adam", "lr": 0.001, ...}; "sgd" where there is no kind, as before there was another."""
    settings = dict(data)
    kind = settings.pop("kind", "sgd")
    if kind not in OPTIMISERS:
        raise ConfigError(f"unknown optimiser {kind!r}: {expected(str(kind), OPTIMISERS)}")
    return _make(OPTIMISERS[kind], settings)


def optimiser_to_dict(optimiser: OptimiserRecipe) -> dict[str, Any]:
    """The inverse of `optimiser_from_dict`."""
    kind = next(name for name, kind in OPTIMISERS.items() if kind is type(optimiser))
    return {"kind": kind, **dataclasses.asdict(optimiser)}


@dataclasses.dataclass(frozen=True)
class AverageRecipe:
    """Settings of the moving average of the weights (minicnn/train/average.py)."""

    factor: float = 0.999
    warmup: bool = True

    def __post_init__(self):
        self.make(None)

    def make(self, net) -> WeightAverage:
        return WeightAverage(net, self.factor, self.warmup)


def is_param(name: str) -> bool:
    """Whether this is the name of a parameter, such as "conv1.w", and not of a layer."""
    return "." in name


def is_bias(name: str) -> bool:
    """Whether a parameter, such as "conv1.b", is a bias."""
    return name.endswith(".b")


def steady_output_lr(lr: float, classes: int, hidden: int = 4096) -> float:
    """A factor on the output layer's learning rate that damps AlexNet's oscillation in the first epoch; near 1 for many
    classes.

    Biases of 1 make the hidden units h begin near 1, and dropout halves them: |h|^2 = hidden / 2. Along h the loss then
    curves with c = 2 |h|^2 p (1 - p), p = 1 / classes: 1024 for two classes, 4 for a thousand. Momentum 0.9 is stable
    while lr * c < 3.8, which the paper's 0.01 is for a thousand classes and not for two. This keeps it at 1.
    It damps and does not remove: on two classes the mean loss of the first epoch was 0.94 with it (lr 0.03) and 1.64
    without (lr 0.01), with single steps still above 1.4; learning was not shown to be better after that epoch.
    """
    curvature = hidden * (classes - 1) / classes**2
    return min(1.0, 1.0 / (lr * curvature)) if classes > 1 else 1.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides, with the seed and the data, what the weights become.

    net: how the network is built, such as {"model": "alexnet", "variant": "paper", "num_classes": 2}.
    calibrate: layer -> standard deviation of its outputs at the start (minicnn/train/calibrate.py); empty: as drawn.
    preprocess: what happens to every image; by default its size is the data set's.
    augment: how training images are varied.   optimiser: SGDRecipe, AdamRecipe or AdamWRecipe: learning rate, weight
    decay, batch and more.   schedule: of the learning rate, one of minicnn/train/schedule.py.
    average: AverageRecipe: validate with a moving average of the weights; None: with the weights.
    whiten: a first convolution whose filters whiten patches of the training images (minicnn/train/whiten.py); "": none.
    freeze_after: layer -> the epochs after which it is no longer trained.   lookahead: LookaheadRecipe, or None.
    sgd: the name of `optimiser` in 0.1.0; works as an argument.
    The side of the crop is kept in `preprocess`: Augment(crop=...) sets it there.
    """

    net: dict[str, Any]
    calibrate: dict[str, float] = dataclasses.field(default_factory=dict)
    preprocess: Preprocess = Preprocess(size=None)
    augment: Augment = dataclasses.field(default_factory=Augment)
    optimiser: OptimiserRecipe = dataclasses.field(default_factory=SGDRecipe)
    schedule: Constant = dataclasses.field(default_factory=Plateau)
    average: AverageRecipe | None = None
    whiten: str = ""
    freeze_after: dict[str, int] = dataclasses.field(default_factory=dict)
    lookahead: LookaheadRecipe | None = None
    sgd: dataclasses.InitVar[SGDRecipe | None] = None

    def __post_init__(self, sgd):
        if sgd is not None:
            object.__setattr__(self, "optimiser", sgd)
        if self.augment.crop is not None:
            object.__setattr__(self, "preprocess", dataclasses.replace(self.preprocess, crop=self.augment.crop))
            object.__setattr__(self, "augment", dataclasses.replace(self.augment, crop=None))

    def frozen(self, epoch: int) -> list[str]:
        """The layers that are not trained in this epoch, counted from 0."""
        factors = self.optimiser.layer_lr
        partly = {layer_of(name) for name, factor in factors.items() if is_param(name) and factor}
        never = [name for name, factor in factors.items() if factor == 0 and not is_param(name) and name not in partly]
        return never + [layer for layer, epochs in self.freeze_after.items() if epoch >= epochs]

    def of(self, dataset: Dataset) -> Recipe:
        """This recipe with the size of the data set's images. ConfigError where they were resized in another way."""
        return dataclasses.replace(self, preprocess=self.preprocess.of(dataset))

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of what JSON can hold, so that a recipe read back equals the one that was stored."""
        return json.loads(json.dumps({
            "net": self.net, "calibrate": self.calibrate, "preprocess": self.preprocess.to_dict(),
            "augment": {name: value for name, value in dataclasses.asdict(self.augment).items() if name != "crop"},
            "optimiser": optimiser_to_dict(self.optimiser), "schedule": schedule_to_dict(self.schedule),
            "average": self.average and dataclasses.asdict(self.average), "whiten": self.whiten,
            "freeze_after": self.freeze_after, "lookahead": self.lookahead and dataclasses.asdict(self.lookahead)}))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; raises ConfigError for a part or a setting that does not exist.

        Recipes of 0.1.0 have no preprocess, the crop in augment, the optimiser as "sgd", and a part "init" that never
        had an effect.
        """
        parts = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(data) - {*parts, "init", "sgd"}):
            raise ConfigError(f"a recipe has no part {unknown[0]!r}: {expected(unknown[0], parts)}")
        return cls(net=data["net"], calibrate=data.get("calibrate", {}),
                   preprocess=Preprocess.from_dict(data.get("preprocess", {"size": None})),
                   augment=_make(Augment, data.get("augment", {})),
                   optimiser=optimiser_from_dict(data.get("optimiser", data.get("sgd", {}))),
                   schedule=schedule_from_dict(data.get("schedule", {"kind": "plateau"})),
                   average=_make(AverageRecipe, data["average"]) if data.get("average") else None,
                   whiten=data.get("whiten", ""), freeze_after=data.get("freeze_after", {}),
                   lookahead=_make(LookaheadRecipe, data["lookahead"]) if data.get("lookahead") else None)


@dataclasses.dataclass(frozen=True)
class NamedRecipe:
    """A recipe, how many epochs it takes, where it is printed ("": it is our own), and what of that is not in it.

    about: what it is, in a few words.   stretched: the schedule follows the number of epochs that is asked for.
    steady: the output layer's learning rate is lowered for few classes (recipe.steady_output_lr).   turned: images
    without an upright are turned by 90 degrees, too.
    images: for our own, the size of the training set that `epochs` is meant for; other sets get other epochs, so that
    they take about as many steps: `epochs_for`.
    """

    recipe: Recipe
    epochs: int
    source: str = ""
    apart: str = ""
    about: str = ""
    stretched: bool = False
    steady: bool = False
    turned: bool = False
    images: int = 0

    def epochs_for(self, images: int) -> int:
        """Epochs on a training set of this size: in proportion to `images`, from 2/3 of `epochs` to 200."""
        if not self.images:
            return self.epochs
        return round(min(max(self.epochs * self.images / max(images, 1), 2 / 3 * self.epochs), 200))

    def schedule(self, epochs: int):
        """The learning rate schedule of a run of so many epochs."""
        ours = self.recipe.schedule
        return ours.stretched(epochs, self.epochs) if self.stretched else ours


def _make(cls, settings: dict[str, Any]):
    known = [field.name for field in dataclasses.fields(cls)]
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(f"{cls.__name__} has no setting {unknown[0]!r}: {expected(unknown[0], known)}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optimiser": {"lr": 0.01}} -> {"optimiser.lr": 0.01}."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(knob, our value, their value) wherever two recipes in dictionary form differ; None where one lacks the knob."""
    a, b = flatten(ours), flatten(theirs)
    return [(knob, a.get(knob), b.get(knob)) for knob in sorted(a.keys() | b.keys()) if a.get(knob) != b.get(knob)]


PAPER = Recipe(net={"model": "alexnet", "variant": "paper", "num_classes": 1000},
               preprocess=Preprocess(size=None, crop=224), augment=Augment(flip=True, colour="paper"),
               optimiser=SGDRecipe(lr=0.01, batch=128), schedule=Plateau())

# The knobs in words, for people; a value that has a word is replaced by it.
LABELS = {"net.num_classes": "classes", "preprocess.crop": "crop", "preprocess.resize": "resized by",
          "preprocess.interpolation": "interpolation", "preprocess.order": "channels",
          "preprocess.range": "pixels up to", "preprocess.mean": "mean", "preprocess.std": "divided by",
          "augment.flip": "horizontal flip", "augment.updown": "vertical flip", "augment.transpose": "transposition",
          "augment.colour": "colour shift", "augment.alternate": "horizontal flip in every second epoch",
          "augment.scale": "scale jitter of the short side", "augment.area": "random area of the crop",
          "augment.pad": "padding", "augment.padding": "padding mode", "augment.cutout": "cutout",
          "preprocess.test_size": "short side set for evaluation",
          "augment.colour_std": "size of the colour shift", "optimiser.kind": "optimiser",
          "optimiser.lr": "learning rate", "optimiser.batch": "batch",
          "optimiser.decay": "weight decay", "optimiser.norm_decay": "weight decay of batch normalisation",
          "optimiser.momentum": "momentum",
          "optimiser.lr_in_velocity": "learning rate inside the velocity",
          "optimiser.nesterov": "Nesterov momentum", "optimiser.decoupled": "decoupled weight decay",
          "optimiser.filter_rms": "limit on the RMS of a filter",
          "optimiser.bias_lr": "factor on biases' learning rate",
          "optimiser.betas": "betas", "optimiser.eps": "epsilon",
          "optimiser.output_lr": "factor on the last layer's learning rate",
          "average.factor": "moving average of the weights (EMA), factor", "average.warmup": "EMA warm-up",
          "whiten": "first layer that whitens patches", "lookahead.every": "lookahead, steps",
          "lookahead.factor": "lookahead, factor", "lookahead.power": "lookahead, power",
          "schedule": "learning rate schedule"}
LAYER_LABELS = {"freeze_after": "epochs that are trained of", "calibrate": "initial standard deviation of",
                "optimiser.layer_lr": "factor on the learning rate of"}
WORDS = {None: "no", "": "no", True: "yes", False: "no", "paper": "as printed", "sgd": "SGD", "adam": "Adam",
         "adamw": "AdamW", "short": "the short side, central square kept", "aspect": "the short side, all of it kept",
         "squash": "both sides"}


def differences_in_words(ours: Recipe, theirs: Recipe = PAPER) -> list[tuple[str, str, str]]:
    """Such as ("batch", "32", "128"): knob in words, our value and theirs, for every knob that has a label and differs.
    """
    def word(value) -> str:
        if isinstance(value, list):
            return " ".join(f"{number:g}" for number in value)
        return str(WORDS.get(value, value)) if value is None or isinstance(value, bool | str) else f"{value:g}"

    def data(recipe: Recipe) -> dict[str, Any]:
        return {**recipe.to_dict(), "schedule": recipe.schedule.in_words()}

    lines = []
    for knob, a, b in differences(data(ours), data(theirs)):
        part, _, layer = knob.rpartition(".")
        label = f"{LAYER_LABELS[part]} {layer}" if part in LAYER_LABELS else LABELS.get(knob)
        if label and word(a) != word(b):
            lines.append((label, word(a), word(b)))
    return lines
