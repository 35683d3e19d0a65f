"""Backward rules for pictures of what a unit responds to: what a ReLU and a normalisation pass down.

For a ReLU with input x and the signal R from the layer above:

    backprop     R where x > 0              the gradient: Simonyan, Vedaldi and Zisserman, 2014
    deconvnet    R where R > 0              Zeiler and Fergus, ECCV 2014
    guided       R where x > 0 and R > 0    Springenberg et al., 2015

All else is linear at a given image and passes R through its transpose, as in the backward pass: convolutions without
their biases, max pooling by its switches, batch normalisation by its fixed statistics. Figure 1 of Zeiler and Fergus
has no inverse of local response normalisation; with lrn="identity" it passes R as it is. Activations without a
threshold at 0 (tanh, sigmoid, LeakyReLU, GELU) have no such rule and pass R by their derivative.
"""

from __future__ import annotations

from minicnn.errors import ConfigError, expected_one_of
from minicnn.layers.activation import GELU, ClippedReLU, LeakyReLU, ReLU, Sigmoid, Tanh
from minicnn.layers.base import Layer
from minicnn.layers.lrn import LRN, LRNWithin

RULES = {"backprop": "Activation times gradient", "deconvnet": "Deconvnet", "guided": "Guided backpropagation"}
LRN_RULES = ("identity", "gradient")


def deconvnet(layer, dy, saved):
    """R where R > 0."""
    return dy * (dy > 0)


def guided(layer, dy, saved):
    """R where R > 0 and the activation lets a gradient through."""
    y = saved["y"]
    active = (y > 0) & (y < layer.ceiling) if isinstance(layer, ClippedReLU) else y > 0
    return dy * active * (dy > 0)


def identity(layer, dy, saved):
    """R as it is."""
    return dy


def usual_lrn(rule: str) -> str:
    """What a local response normalisation passes unless asked otherwise: ConfigError for an unknown rule."""
    if rule not in RULES:
        raise ConfigError(f"there is no backward rule {rule!r}: {expected_one_of(rule, RULES)}")
    return "identity" if rule == "deconvnet" else "gradient"


def rules_for(rule: str, lrn: str | None = None) -> dict:
    """The `rules` of net.backward.   rule: a key of RULES.   lrn: "identity" or "gradient"; by default usual_lrn."""
    lrn = usual_lrn(rule) if lrn is None else lrn
    if lrn not in LRN_RULES:
        raise ConfigError(f"lrn cannot be {lrn!r}: {expected_one_of(lrn, LRN_RULES)}")
    found = {"deconvnet": deconvnet, "guided": guided}.get(rule)
    rules = {} if found is None else dict.fromkeys(_kinds(ReLU, ClippedReLU), found)
    return rules | (dict.fromkeys(_kinds(LRN, LRNWithin), identity) if lrn == "identity" else {})


def _kinds(*classes: type) -> list[type]:
    """These classes and those derived from them, since net.backward looks a rule up by the exact class."""
    return [kind for kind in Layer.KINDS.values() if issubclass(kind, classes)]


def words(net, rule: str, lrn: str) -> str:
    """What the rules do in this network, for a caption."""
    layers = [node.layer for node in net.nodes]
    parts = [{"backprop": "a ReLU passes R where its input was positive", "deconvnet": "a ReLU passes R where R > 0",
              "guided": "a ReLU passes R where R > 0 and its input was positive"}[rule]]
    if not any(isinstance(layer, (ReLU, ClippedReLU)) for layer in layers):
        parts = ["the network has no ReLU, whose rule this is"]
    if any(isinstance(layer, (LRN, LRNWithin)) for layer in layers):
        parts.append("LRN passes R unchanged" if lrn == "identity" else "LRN by its derivative")
    if other := {type(layer).__name__ for layer in layers if isinstance(layer, (Tanh, Sigmoid, LeakyReLU, GELU))}:
        parts.append(f"{' and '.join(sorted(other))} by the derivative")
    return "; ".join(parts)
