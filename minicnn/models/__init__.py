"""Networks from papers, each written like the table in its paper: `build(name)`, or the functions themselves."""

from minicnn.models.alexnet import alexnet, reduced_alexnet
from minicnn.models.cifar import cifar_18pct, cifar_paper
from minicnn.models.registry import MODELS, build

__all__ = ["MODELS", "alexnet", "build", "cifar_18pct", "cifar_paper", "reduced_alexnet"]
