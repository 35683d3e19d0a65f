"""The declaration of a network: the function that builds it, its variants, and what they reached."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from minicnn.graph import Net

COMMON = ("variant", "num_classes", "device", "seed", "dtype", "values")        # arguments of `build`, so no knobs
IMAGENET = "ImageNet's validation images, top-1 / top-5"
CIFAR10 = "CIFAR-10's test images"


@dataclass(frozen=True)
class Variant:
    """recipe: how it is trained.   parameters: their number, with the classes it was published for.   error: published,
    in the words of its source.   knobs: arguments of the function.   macs: multiply-adds of a prediction for one image.
    ours: what it reached in a training of this package ("": not trained yet).   auxiliary: of the parameters, those of
    layers that only training needs.
    """

    recipe: str
    parameters: int
    error: str
    source: str
    knobs: dict = field(default_factory=dict)
    macs: int = 0
    ours: str = ""
    auxiliary: int = 0


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
    tested_on: str = IMAGENET
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
