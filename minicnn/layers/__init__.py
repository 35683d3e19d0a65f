"""The layers, one file per kind, with forward and backward. Read lrn.py or conv.py first; base.py: the interface."""

from minicnn.init import Dirac, Glorot, He, Normal, Uniform
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, Multiply, ReLU, Sigmoid, Tanh
from minicnn.layers.base import Context, Layer, LayerPlan
from minicnn.layers.batchnorm import Affine, BatchNorm2d
from minicnn.layers.combine import Add, Concat, Flatten, Subsample
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.linear import Linear
from minicnn.layers.local import Local2d
from minicnn.layers.loss import SoftmaxCrossEntropy
from minicnn.layers.lrn import LRN, LRNWithin
from minicnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d

__all__ = [
    "AdaptiveAvgPool2d", "Add", "Affine", "AvgPool2d", "BatchNorm2d", "ClippedReLU", "Concat", "Context", "Conv2d",
    "Dirac", "Dropout", "Flatten", "GELU", "GlobalAvgPool2d", "Glorot", "He", "LRN", "LRNWithin", "Layer", "LayerPlan",
    "LeakyReLU", "Linear", "Local2d", "MaxPool2d", "Multiply", "Normal", "ReLU", "Sigmoid", "SoftmaxCrossEntropy",
    "Subsample", "Tanh", "Uniform",
]
