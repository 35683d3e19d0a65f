"""Every network by its name: `build("alexnet")`, `build("alexnet:caffe", num_classes=10)`.

MODELS has one declaration for each (minicnn/models/model.py): the function that builds it, its variants (the first is
what the bare name means) and what they reached. How each is trained is in minicnn/train/recipes.py, under the name of
its recipe. minicnn/models/README.md shows all of them; `minicnn models --page` writes it.
"""

from __future__ import annotations

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
                     macs=12_298_240),
    }, tested_on=CIFAR10, image_size=32, aliases={"cifar-18pct": ""}),

    "cifar_paper": Model("The four-layer net", cifar_paper, {
        "": Variant("published", 2_112_970, "11 %; 13 % with lrn=False",
                    "the paper, section 3.3; dnouri/cuda-convnet: layers-conv-local-11pct.cfg and -13pct.cfg",
                    macs=19_512_576),
    }, tested_on=CIFAR10, image_size=32, aliases={"cifar-paper": ""}),

    **DESCENDANTS,
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
        raise ConfigError(f"unknown model {bare!r}: {hint}{_like(bare, [*MODELS, *aliases])}")
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


def _like(name: str, known: list[str]) -> str:
    """The end of the message about an unknown model: the names that begin with it, or the nearest one; no long list."""
    near = [other for other in known if name and other.startswith(name.lower())] or list(filter(None, [
        nearest(name, known)]))
    few = ", ".join(near[:FEW]) + (f" and {len(near) - FEW} more" if len(near) > FEW else "")
    return f"{f'did you mean {few}? ' if near else ''}`minicnn models` lists all {len(MODELS)}"


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
