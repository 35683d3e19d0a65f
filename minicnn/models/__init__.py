"""Networks from papers, each written as its paper's table reads. Functions return a Net with freshly drawn weights."""

from minicnn.models.alexnet import alexnet, reduced_alexnet
from minicnn.models.cifar import cifar_18pct, cifar_paper

__all__ = ["alexnet", "cifar_18pct", "cifar_paper", "reduced_alexnet"]
