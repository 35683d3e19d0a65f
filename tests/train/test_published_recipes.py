"""What papers and most used implementations print, against the recipes: every constant of each."""

from __future__ import annotations

import dataclasses
import math

import pytest

from minicnn.train.recipes import named_recipe
from minicnn.train.schedule import Plateau

IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# (model, recipe) -> learning rate, weight decay, batch, epochs, momentum
UPDATES = {
    ("alexnet", "paper"): (0.01, 0.0005, 128, 90, 0.9), ("alexnet", "authors"): (0.01, 0.0005, 128, 91, 0.9),
    ("alexnet", "ungrouped"): (0.01, 0.0005, 128, 90, 0.9), ("alexnet", "caffe"): (0.01, 0.0005, 256, 90, 0.9),
    ("alexnet", "torchvision"): (0.01, 0.0001, 256, 90, 0.9),
    ("cifar_18pct", "published"): (0.001, 0.004, 128, 140, 0.9),
    ("cifar_paper", "published"): (0.001, 0.004, 128, 520, 0.9),
    ("zfnet", "paper"): (0.01, 0.0005, 128, 70, 0.9),
    ("vgg", "paper"): (0.01, 0.0005, 256, 74, 0.9),
    ("vgg", "jitter"): (0.001, 0.0005, 256, 74, 0.9),
    ("vgg", "torchvision"): (0.01, 0.0001, 256, 90, 0.9),
    ("googlenet", "paper"): (0.01, 0.0002, 32, 250, 0.9),
    ("resnet50", "paper"): (0.1, 0.0001, 256, 120, 0.9),
    ("resnet50", "torchvision"): (0.1, 0.0001, 256, 90, 0.9),
    ("plain34", "paper"): (0.1, 0.0001, 256, 120, 0.9),
    ("resnet20", "paper"): (0.1, 0.0001, 128, 164, 0.9),
    ("resnet110", "paper"): (0.1, 0.0001, 128, 164, 0.9),
    ("airbench93", "published"): (11.5 / (1 + 1 / 0.15), 0.0153 / 11.5, 1024, 11, 0.85),
    ("airbench94", "published"): (11.5 / (1 + 1 / 0.15), 0.0153 / 11.5, 1024, 10, 0.85),
    ("airbench94", "long"): (9 / (1 + 1 / 0.15), 0.012 / 9, 1024, 60, 0.85),
    ("squeezenet1_1", "paper"): (0.04, 0.0002, 512, 68, 0.9),
    ("mobilenet_v2", "torchvision"): (0.045, 0.00004, 256, 300, 0.9),
}
# -> crop, short sides of scale jitter, areas, zero padding, colours
CROPS = {
    ("alexnet", "paper"): (224, None, None, 0, True), ("alexnet", "caffe"): (227, None, None, 0, False),
    ("alexnet", "torchvision"): (224, None, None, 0, False), ("cifar_18pct", "published"): (32, None, None, 0, False),
    ("cifar_paper", "published"): (24, None, None, 0, False),
    ("zfnet", "paper"): (224, None, None, 0, False), ("vgg", "paper"): (224, None, None, 0, True),
    ("vgg", "jitter"): (224, (256, 512), None, 0, True), ("vgg", "torchvision"): (224, None, (0.08, 1.0), 0, False),
    ("googlenet", "paper"): (224, None, (0.08, 1.0), 0, False), ("resnet50", "paper"): (224, (256, 480), None, 0, True),
    ("resnet50", "torchvision"): (224, None, (0.08, 1.0), 0, False), ("resnet20", "paper"): (32, None, None, 4, False),
    ("airbench93", "published"): (32, None, None, 2, False), ("airbench94", "long"): (32, None, None, 4, False),
    ("squeezenet1_1", "paper"): (224, None, None, 0, False),
    ("mobilenet_v2", "torchvision"): (224, None, (0.08, 1.0), 0, False),
}
# -> mean, standard deviation
CHANNELS = {
    ("vgg", "paper"): ((123.68, 116.779, 103.939), None), ("vgg", "jitter"): ((123.68, 116.779, 103.939), None),
    ("googlenet", "paper"): ((123, 117, 104), None), ("squeezenet1_1", "paper"): ((123, 117, 104), None),
    ("vgg", "torchvision"): IMAGENET, ("resnet50", "torchvision"): IMAGENET, ("mobilenet_v2", "torchvision"): IMAGENET,
    ("airbench93", "published"): tuple([255 * value for value in values] for values in
                                       ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
}
# epoch -> the learning rate there, of the first
SCHEDULES = {
    ("alexnet", "authors"): {24: 1, 25: 0.1, 51: 0.01, 79: 0.001},
    ("alexnet", "caffe"): {19: 1, 20: 0.1, 40: 0.01, 60: 0.001, 80: 0.0001},        # 100,000 batches of 256
    ("alexnet", "torchvision"): {29: 1, 30: 0.1, 60: 0.01},
    ("cifar_18pct", "published"): {119: 1, 120: 0.1, 130: 0.01},
    ("cifar_paper", "published"): {499: 1, 500: 0.1, 510: 0.01},
    ("vgg", "torchvision"): {29.9: 1, 30: 0.1, 60: 0.01},
    ("googlenet", "paper"): {7.9: 1, 8: 0.96, 16: 0.96**2},
    ("resnet50", "torchvision"): {29.9: 1, 30: 0.1, 60: 0.01},
    ("resnet20", "paper"): {0: 1, 81.9: 1, 82: 0.1, 123: 0.01},             # 32,000 and 48,000 steps of 390
    ("resnet110", "paper"): {0: 0.1, 0.99: 0.1, 1: 1, 82: 0.1, 123: 0.01},
    ("airbench93", "published"): {0: 0.2, 0.23 * 11: 1, 11: 0.07},
    ("airbench94", "long"): {0: 0.2, 6: 1, 33: 0.5, 57: 3 / 54},            # to 0; at the very end a 50,000th
    ("squeezenet1_1", "paper"): {0: 1, 34: 0.5},
    ("mobilenet_v2", "torchvision"): {0.9: 1, 1: 0.98, 2: 0.98**2},
}


def by_name(table: dict):
    return pytest.mark.parametrize("key", table, ids="-".join)


@by_name(UPDATES)
def test_updates(key):
    entry = named_recipe(*key)
    sgd = entry.recipe.optimiser
    assert (sgd.lr, sgd.decay, sgd.batch, entry.epochs, sgd.momentum) == pytest.approx(UPDATES[key])


@by_name(CROPS)
def test_crops(key):
    recipe = named_recipe(*key).recipe
    augment = recipe.augment
    assert (recipe.preprocess.crop, augment.scale, augment.area, augment.pad, augment.colour == "paper") == CROPS[key]
    if augment.area:
        assert augment.aspect == pytest.approx((3 / 4, 4 / 3))


@by_name(CHANNELS)
def test_channels(key):
    preprocess, (mean, std) = named_recipe(*key).recipe.preprocess, CHANNELS[key]
    scale = 255 / preprocess.range
    assert [scale * value for value in preprocess.mean] == pytest.approx(mean)
    assert (std is None) == (preprocess.std is None)
    if std:
        assert [scale * value for value in preprocess.std] == pytest.approx(std)


@by_name(SCHEDULES)
def test_schedules(key):
    schedule, wanted = named_recipe(*key).recipe.schedule, SCHEDULES[key]
    assert {epoch: schedule.factor(epoch) for epoch in wanted} == pytest.approx(wanted, rel=1e-3)


def test_what_is_printed_for_one_net_alone():
    assert named_recipe("zfnet", "paper").recipe.optimiser.filter_rms == 0.1
    assert isinstance(named_recipe("resnet50", "paper").recipe.schedule, Plateau)
    airbench = named_recipe("airbench93", "published").recipe
    assert airbench.optimiser.nesterov and not airbench.optimiser.lr_in_velocity
    assert airbench.optimiser.layer_lr == {"whiten.w": 0, "whiten.b": 1 / 64} and airbench.optimiser.bias_lr == 64
    assert airbench.augment.alternate and airbench.augment.padding == "reflect"
    assert airbench.freeze_after == {"whiten": 3} and airbench.whiten == "whiten"
    assert math.isclose(airbench.lookahead.factor, 0.95**5) and airbench.lookahead.every == 5
    assert dataclasses.astuple(named_recipe("mobilenet_v2", "torchvision").recipe.preprocess)[:1] == (384,)
