"""Networks from papers, each written like the table in its paper: `build(name)`, or the functions themselves."""

from minicnn.models.airbench import airbench93, airbench94
from minicnn.models.alexnet import alexnet, reduced_alexnet
from minicnn.models.cifar import cifar_18pct, cifar_paper
from minicnn.models.googlenet import googlenet
from minicnn.models.mobilenet import mobilenet_v2
from minicnn.models.registry import MODELS, build
from minicnn.models.resnet import (
    plain18,
    plain20,
    plain32,
    plain34,
    plain44,
    plain56,
    plain110,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet101,
    resnet110,
    resnet152,
    resnet1202,
)
from minicnn.models.squeezenet import squeezenet1_1
from minicnn.models.vgg import vgg
from minicnn.models.zfnet import zfnet

__all__ = [
    "MODELS", "airbench93", "airbench94", "alexnet", "build", "cifar_18pct", "cifar_paper", "googlenet", "mobilenet_v2",
    "plain110", "plain18", "plain20", "plain32", "plain34", "plain44", "plain56", "reduced_alexnet", "resnet101",
    "resnet110", "resnet1202", "resnet152", "resnet18", "resnet20", "resnet32", "resnet34", "resnet44", "resnet50",
    "resnet56", "squeezenet1_1", "vgg", "zfnet",
]
