"""Every network by its name: `build("alexnet")`, `build("alexnet:caffe", num_classes=10)`.

MODELS has one declaration for each (minicnn/models/model.py): the function that builds it, its variants (the first is
what the bare name means) and what they reached. How each is trained is in minicnn/train/recipes.py, under the name of
its recipe. minicnn/models/README.md shows all of them; `minicnn models --markdown` writes it.
"""

from __future__ import annotations

import re

from minicnn.errors import ConfigError, expected_one_of, nearest
from minicnn.graph import Net
from minicnn.models.alexnet import alexnet
from minicnn.models.alexnet_variants import Knobs
from minicnn.models.alexnet_variants import differences as alexnet_differences
from minicnn.models.cifar import cifar_18pct, cifar_paper
from minicnn.models.descendants import DESCENDANTS
from minicnn.models.knobs import names_of
from minicnn.models.model import CIFAR10, Model, Variant

FEW = 5                         # names that a message lists

MODELS: dict[str, Model] = {
    "alexnet": Model("AlexNet", alexnet, {
        "paper": Variant("paper", 60_965_224, "40.7 / 18.2, ten crops", "the paper, sections 3 and 5",
                         {"variant": "paper"}, 724_406_816),
        "authors": Variant("authors", 60_965_224, "40.66 / 18.21, ten crops", "akrizhevsky: layers/layers-145.cfg",
                           {"variant": "authors"}, 724_406_816),
        "caffe": Variant("caffe", 60_965_224, "42.9 / 19.8, centre crop", "BVLC/caffe: models/bvlc_alexnet",
                         {"variant": "caffe"}, 724_406_816),
        "ungrouped": Variant("ungrouped", 62_378_344, "not published", "the paper, without its two GPUs",
                             {"variant": "ungrouped"}, 1_135_256_096),
        "torchvision": Variant("torchvision", 61_100_840, "43.48 / 20.93, centre crop",
                               "pytorch/vision: models/alexnet.py", {"variant": "torchvision"}, 714_188_480),
    }, changes=tuple(names_of(Knobs)),
        differences=alexnet_differences,
        two_gpus=("two processors instead of two GPUs", "no two GPUs, the same arithmetic")),

    "cifar_18pct": Model("cuda-convnet's 18 % net", cifar_18pct, {
        "": Variant("published", 89_578, "18 %", "dnouri/cuda-convnet: example-layers/layers-18pct.cfg",
                     macs=12_298_240, ours="19.61 %, recipe quick, 100 epochs, on a JPEG copy"),
    }, tested_on=CIFAR10, image_size=32),

    "cifar_paper": Model("The four-layer net", cifar_paper, {
        "": Variant("published", 2_112_970, "11 %; 13 % with lrn=False",
                    "the paper, section 3.3; dnouri/cuda-convnet: layers-conv-local-11pct.cfg and -13pct.cfg",
                    macs=19_512_576),
    }, tested_on=CIFAR10, image_size=32),

    **DESCENDANTS,
}


def named(name: str) -> tuple[str, str] | None:
    """(model, variant or "") of a bare name or an alias, whose case and punctuation do not matter: "ResNet-18"."""
    spelled = {_plain(alias): (model, variant) for alias, (model, variant) in _names().items()}
    return spelled.get(_plain(name))


def find(name: str, variant: str | None = None) -> tuple[str, str]:
    """(model, variant) of "alexnet", "alexnet:caffe" or an alias; `variant` may be given beside a bare name.

    Raises ConfigError for a name or a variant that does not exist, with the nearest one that does.
    """
    bare, _, own = name.partition(":")
    found = named(bare)
    if not found:
        owner = next((known for known, entry in MODELS.items() if bare and bare in entry.variants), None)
        hint = f"{owner!r} has such a variant: write {owner}:{bare}; " if owner else ""
        raise ConfigError(f"unknown model {bare!r}: {hint}{_like(bare)}")
    model, implied = found
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


def family(name: str) -> list[str]:
    """The models whose names begin with this one: of "resnet", resnet18, resnet34 and so on."""
    return [model for model in MODELS if _plain(name) and _plain(model).startswith(_plain(name))]


def _names() -> dict[str, tuple[str, str]]:
    """Every model and alias -> (model, variant)."""
    return {model: (model, "") for model in MODELS} | {
        alias: (model, variant) for model, entry in MODELS.items() for alias, variant in entry.aliases.items()}


def _plain(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[\W_]", "", name).lower()


def _like(name: str) -> str:
    """The end of the message about an unknown model: the family that is meant, or the nearest name; no long list."""
    stems = dict.fromkeys(model.rstrip("0123456789") for model in MODELS)
    near = name.lower() if family(name) else nearest(name, [*_names(), *stems])
    like = [] if near is None else family(near) or [near]
    if len(like) < 2:
        return f"{f'did you mean {like[0]}? ' if like else ''}`minicnn models` lists all {len(MODELS)}"
    few = ", ".join(like[:FEW]) + (f" and {len(like) - FEW} more" if len(like) > FEW else "")
    return f"did you mean {few}? `minicnn models {near}` lists them"


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
