"""The network that a run is of: one of minicnn.models, or a function of one's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.experiment import own_net
from minicnn.graph import Net
from minicnn.models import registry


def resolve(name: str, variant: str | None = None) -> tuple[str, str]:
    """(model, variant) as settings hold them, of "alexnet", "alexnet:caffe" or FILE.py:FUNCTION."""
    if not own_net.is_own(name):
        file, _, function = name.partition(":")
        if file not in registry.MODELS and os.path.isfile(f"{file}.py"):
            raise ConfigError(f"unknown model {name!r}: did you mean {file}.py{':' * bool(function)}{function}?")
        return registry.find(name, variant)
    if variant:
        raise ConfigError(f"{name} is a function of your own, which has no variants; leave --variant {variant} out")
    return own_net.absolute(name), ""


def title(settings: dict) -> str:
    """The network in prose: "AlexNet (caffe)"."""
    model, variant = settings["model"], settings["variant"]
    if model not in registry.MODELS:
        return own_net.short(model)
    return registry.MODELS[model].title + (f" ({variant})" if variant else "")


def in_words(settings: dict) -> str:
    """The network in its own words: "AlexNet, variant caffe"."""
    model, variant = settings["model"], settings["variant"]
    return f"{registry.MODELS[model].title}, variant {variant}" if variant else title(settings)


def name_of(settings: dict, net: Net) -> str:
    """The network as part of a folder's name: its model and variant, of AlexNet the variant alone, as since 0.1.0; of
    one's own the name it has, else the file's."""
    if not own_net.is_own(settings["model"]):
        model = settings["model"] if settings["model"] != "alexnet" else ""
        return "-".join(filter(None, (model, settings["variant"])))
    name = net.name if net.name != "net" else Path(own_net.split(settings["model"])[0]).stem
    return re.sub(r"[^\w.-]+", "-", name)


def data_of(settings: dict, classes: int) -> dict:
    """The network as a recipe holds it: what it is built from, without folders and devices."""
    model = settings["model"]
    variant = {"variant": settings["variant"]} if settings["variant"] else {}
    return {"model": own_net.short(model) if own_net.is_own(model) else model, **variant, "num_classes": classes,
            **settings["knobs"]}


def build_net(settings: dict, classes: int | None = None, **common) -> Net:
    """The network of these settings, with so many classes (default: its own number of them).

    common: values, or dtype. Raises ConfigError where a network of one's own cannot be trained on images.
    """
    common = {"num_classes": classes, "seed": settings["seed"], "device": settings["device"], **common}
    if not own_net.is_own(settings["model"]):
        return registry.build(settings["model"], settings["variant"], **common, **settings["knobs"])
    net = own_net.build(settings["model"], **common)
    _check_trainable(net, settings, classes)
    return net


def _check_trainable(net: Net, settings: dict, classes: int | None) -> None:
    """ConfigError unless it takes square colour images, has a loss, and has as many classes as the data."""
    name, shape = own_net.short(settings["model"]), net.input_shape
    if len(net.inputs) > 1:
        raise ConfigError(f"{name}: the net has the inputs {', '.join(net.inputs)}; training gives it images alone, "
                          "expected one input")
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] != 3:
        raise ConfigError(f"{name}: the net takes images of {' x '.join(map(str, shape))}; expected N x N x 3, square "
                          "colour images")
    if not net.losses:
        raise ConfigError(f"{name}: the net has no loss; end it with Builder.loss()")
    if classes not in (None, net.num_classes):
        raise ConfigError(f"{name}: the net has {net.num_classes} classes, the data {classes}; give the function a "
                          "parameter num_classes, and its last layer as many outputs")
    if settings["seed"] not in (0, net.seed):
        raise ConfigError(f"{name}: seed {settings['seed']} was asked for, and the function has drawn its weights from "
                          f"seed {net.seed}; give it a parameter seed")
