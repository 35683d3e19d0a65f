"""Every network by its name: `build("alexnet")`, `build("alexnet:caffe", num_classes=10)`.

MODELS has one declaration for each: the function that builds it, its variants (the first is what the bare name means)
and what they reached. How each is trained is in minicnn/train/recipes.py, under the name of its recipe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from minicnn.errors import ConfigError, expected_one_of
from minicnn.graph import Net
from minicnn.models.alexnet import alexnet
from minicnn.models.alexnet_variants import Knobs
from minicnn.models.alexnet_variants import differences as alexnet_differences
from minicnn.models.cifar import cifar_18pct, cifar_paper

COMMON = ("variant", "num_classes", "device", "seed", "dtype", "values")        # arguments of `build`, so no knobs


@dataclass(frozen=True)
class Variant:
    """recipe: how it is trained.   parameters: their number, with the classes it was published for.   error: published,
    in the words of its source.   knobs: arguments of the function.
    """

    recipe: str
    parameters: int
    error: str
    source: str
    knobs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A network that `build` knows.

    title: its name in prose.   function: builds it.   variants: name -> Variant, the default first; a network without
    variants has one, called "".   tested_on: the images that published errors are of.   image_size: side of the images
    that its crops are cut from.   changes: knobs that the function takes as **changes.   aliases: another name -> the
    variant it means.   differences: variant -> lines that say where it departs from the paper.   two_gpus: how
    runs depart from the paper's two GPUs, where the columns are on two ranks, and where they are not.
    """

    title: str
    function: Callable[..., Net]
    variants: dict[str, Variant]
    tested_on: str = "ImageNet's validation images, top-1 / top-5"
    image_size: int = 256
    changes: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    differences: Callable[[str], list[str]] = lambda variant: []
    two_gpus: tuple[str, str] | None = None

    @property
    def default(self) -> str:
        """The variant that the bare name means."""
        return next(iter(self.variants))

    @property
    def knobs(self) -> list[str]:
        """The arguments by which a network departs from its variant."""
        named = [parameter.name for parameter in inspect.signature(self.function).parameters.values()
                 if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in COMMON]
        return [*named, *self.changes]


MODELS: dict[str, Model] = {
    "alexnet": Model("AlexNet", alexnet, {
        "paper": Variant("paper", 60_965_224, "40.7 / 18.2, ten crops", "the paper, sections 3 and 5",
                         {"variant": "paper"}),
        "authors": Variant("authors", 60_965_224, "40.66 / 18.21, ten crops", "akrizhevsky: layers/layers-145.cfg",
                           {"variant": "authors"}),
        "caffe": Variant("caffe", 60_965_224, "42.9 / 19.8, centre crop", "BVLC/caffe: models/bvlc_alexnet",
                         {"variant": "caffe"}),
        "ungrouped": Variant("ungrouped", 62_378_344, "not published", "the paper, without its two GPUs",
                             {"variant": "ungrouped"}),
        "torchvision": Variant("torchvision", 61_100_840, "43.48 / 20.93, centre crop",
                               "pytorch/vision: models/alexnet.py", {"variant": "torchvision"}),
    }, changes=tuple(knob.name for knob in fields(Knobs)),
        differences=alexnet_differences,
        two_gpus=("two processors instead of two GPUs", "no two GPUs, the same arithmetic")),

    "cifar_18pct": Model("cuda-convnet's 18 % net", cifar_18pct, {
        "": Variant("published", 89_578, "18 %", "dnouri/cuda-convnet: example-layers/layers-18pct.cfg"),
    }, tested_on="CIFAR-10's test images", image_size=32, aliases={"cifar-18pct": ""}),

    "cifar_paper": Model("The four-layer net", cifar_paper, {
        "": Variant("published", 2_112_970, "11 %; 13 % with lrn=False",
                    "the paper, section 3.3; dnouri/cuda-convnet: layers-conv-local-11pct.cfg and -13pct.cfg"),
    }, tested_on="CIFAR-10's test images", image_size=32, aliases={"cifar-paper": ""}),
}


def find(name: str, variant: str | None = None) -> tuple[str, str]:
    """(model, variant) of "alexnet", "alexnet:caffe" or an alias; `variant` may be given beside a bare name.

    Raises ConfigError for a name or a variant that does not exist, with the nearest one that does.
    """
    bare, _, own = name.partition(":")
    aliases = {alias: (model, of) for model, entry in MODELS.items() for alias, of in entry.aliases.items()}
    model, implied = (bare, "") if bare in MODELS else aliases.get(bare, (bare, ""))
    if model not in MODELS:
        owner = next((known for known, entry in MODELS.items() if bare and bare in entry.variants), None)
        hint = f"{owner!r} has such a variant: write {owner}:{bare}; " if owner else ""
        raise ConfigError(f"unknown model {bare!r}: {hint}{expected_one_of(bare, MODELS, aliases)}")
    asked = [asked for asked in (implied, own, variant) if asked]
    if len(set(asked)) > 1:
        raise ConfigError(f"{name!r} is the variant {asked[0]!r}, and variant {asked[-1]!r} was asked for; leave one "
                          "of the two out")
    entry = MODELS[model]
    chosen = asked[0] if asked else entry.default
    if chosen not in entry.variants:
        known = [known for known in entry.variants if known]
        raise ConfigError(f"unknown variant {chosen!r} of {model}: "
                          + (expected_one_of(chosen, known) if known else f"expected none, just {model}"))
    return model, chosen


def build(name: str, variant: str | None = None, num_classes: int | None = None, device: str = "auto", seed: int = 0,
          dtype: str = "float32", values: dict | None = None, **knobs) -> Net:
    """The network of this name: build("alexnet"), build("alexnet:caffe"), build("alexnet", "caffe", num_classes=2).

    num_classes: by default those of the data it was published for.   device, seed, dtype, values: see Net.
    knobs: single departures from the variant, such as lrn_groups=1. Raises ConfigError for a model, a variant or a knob
    that does not exist, with the nearest one that does.
    """
    model, variant = find(name, variant)
    entry = MODELS[model]
    for knob in knobs:
        if knob not in entry.knobs:
            raise ConfigError(f"{model} has no knob {knob!r}: {expected_one_of(knob, entry.knobs)}")
    if num_classes is not None:
        knobs["num_classes"] = num_classes
    return entry.function(**{**entry.variants[variant].knobs, **knobs}, device=device, seed=seed, dtype=dtype,
                          values=values)


def full_name(model: str, variant: str = "") -> str:
    """"alexnet:caffe", or the bare name for a network without variants."""
    return f"{model}:{variant}" if variant else model
