"""torchvision's names of the descendants' weights, and the network that they mean."""

import pytest

from minicnn.interop import torch_names as names
from minicnn.interop.state_dict import torchvision_preprocess

RESNET = {"conv1": "conv1", "conv1_bn": "bn1", "conv2_1_conv1": "layer1.0.conv1", "conv2_1_conv3_bn": "layer1.0.bn3",
          "conv3_1_shortcut": "layer2.0.downsample.0", "conv3_1_shortcut_bn": "layer2.0.downsample.1",
          "conv5_3_conv2": "layer4.2.conv2", "fc": "fc", "pool1": "", "conv2_1_conv1_other": ""}
GOOGLENET = {"conv1": "conv1.conv", "conv1_bn": "conv1.bn", "conv2_reduce": "conv2.conv", "conv2_bn": "conv3.bn",
             "inception_3a_1x1": "inception3a.branch1.conv", "inception_4b_3x3_reduce_bn": "inception4b.branch2.0.bn",
             "inception_4b_3x3": "inception4b.branch2.1.conv", "inception_5b_5x5_reduce": "inception5b.branch3.0.conv",
             "inception_5b_5x5_bn": "inception5b.branch3.1.bn", "inception_3a_pool_proj": "inception3a.branch4.1.conv",
             "aux1_conv": "aux1.conv.conv", "aux2_conv_bn": "aux2.conv.bn", "aux1_fc1": "aux1.fc1", "fc": "fc",
             "inception_3a_other": "", "fc6": ""}
SQUEEZENET = {"conv1": "features.0", "fire2_squeeze1x1": "features.3.squeeze",
              "fire4_expand1x1": "features.6.expand1x1", "fire9_expand3x3": "features.12.expand3x3",
              "conv10": "classifier.1", "fc": ""}
MOBILENET = {"conv1": "features.0.0", "conv1_bn": "features.0.1", "conv2_1_depthwise": "features.1.conv.0.0",
             "conv2_1_depthwise_bn": "features.1.conv.0.1", "conv2_1_project": "features.1.conv.1",
             "conv2_1_project_bn": "features.1.conv.2", "conv3_1_expand": "features.2.conv.0.0",
             "conv3_1_depthwise_bn": "features.2.conv.1.1", "conv3_1_project": "features.2.conv.2",
             "conv3_1_project_bn": "features.2.conv.3", "conv3_2_expand_bn": "features.3.conv.0.1",
             "conv9": "features.18.0", "conv9_bn": "features.18.1", "fc": "classifier.1", "pool": ""}
BLOCKS = ["conv2_1_depthwise", "conv2_1_project", "conv3_1_expand", "conv3_1_project", "conv3_2_expand",
          "conv3_2_project"]


@pytest.mark.parametrize("rule, expected", [(names._resnet, RESNET), (names._googlenet, GOOGLENET),
                                            (names._squeezenet, SQUEEZENET), (names._mobilenet, MOBILENET)])
def test_names_of_layers(rule, expected):
    assert {layer: rule(layer, BLOCKS) for layer in expected} == expected


def resnet(counts, bottleneck: bool) -> dict:
    last = 3 if bottleneck else 2
    found = {f"layer{stage}.{block}.conv{conv}.weight": (1, 1, 1, 1) for stage, count in enumerate(counts, start=1)
             for block in range(count) for conv in range(1, last + 1)}
    return {"fc.weight": (9, 512), **found}


def vgg(convs: int, norm: bool) -> dict:
    found = {f"features.{k}.weight": (64, 3, 3, 3) for k in range(convs)}
    return {"classifier.6.weight": (9, 4096), **found, **({"features.90.running_mean": (64,)} if norm else {})}


GUESSED = [
    (resnet((2, 2, 2, 2), False), "resnet18", {"num_classes": 9}),
    (resnet((3, 4, 6, 3), False), "resnet34", {"num_classes": 9}),
    (resnet((3, 4, 6, 3), True), "resnet50:v1.5", {"num_classes": 9}),
    (resnet((3, 8, 36, 3), True), "resnet152:v1.5", {"num_classes": 9}),
    (vgg(8, False), "vgg11", {"num_classes": 9}), (vgg(13, True), "vgg16_bn", {"num_classes": 9}),
    ({"features.0.weight": (64, 3, 11, 11), "classifier.6.weight": (9, 4096)}, "alexnet:torchvision",
     {"num_classes": 9}),
    ({"features.0.weight": (64, 3, 3, 3), "features.3.squeeze.weight": (1,), "classifier.1.weight": (9, 512, 1, 1)},
     "squeezenet1_1", {"num_classes": 9}),
    ({"features.1.conv.0.0.weight": (1,), "classifier.1.weight": (9, 1280)}, "mobilenet_v2", {"num_classes": 9}),
    ({"inception3a.branch1.conv.weight": (1,), "fc.weight": (9, 1024)}, "googlenet:torchvision",
     {"num_classes": 9, "aux": False}),
    ({"inception3a.branch1.conv.weight": (1,), "aux1.fc1.weight": (1,), "fc.weight": (9, 1024)},
     "googlenet:torchvision", {"num_classes": 9}),
]


@pytest.mark.parametrize("shapes, model, options", GUESSED)
def test_the_network_is_known_by_its_names(shapes, model, options):
    assert names.guess(shapes) == (model, options)


@pytest.mark.parametrize("shapes", [{"x.weight": (1, 2)}, resnet((2, 3, 2, 2), False), vgg(9, False),
                                    {"features.0.weight": (96, 3, 7, 7), "features.3.squeeze.weight": (1,)}])
def test_other_networks_are_not_guessed(shapes):
    """SqueezeNet 1.0 among them."""
    assert names.guess(shapes) is None


def test_the_preprocessing_of_torchvision():
    """GoogLeNet transforms its input once more, inside the model: both as one."""
    pre, _ = torchvision_preprocess("resnet18", 224)
    assert (pre.crop, pre.size, pre.range, pre.interpolation) == (224, 256, 1, "bilinear")
    google, source = torchvision_preprocess("googlenet:torchvision", 224)
    for pixel in (0.0, 0.3, 1.0):
        for k, (scale, shift) in enumerate(((0.458, -0.030), (0.448, -0.088), (0.450, -0.188))):
            expected = (pixel - pre.mean[k]) / pre.std[k] * scale + shift
            assert abs((pixel - google.mean[k]) / google.std[k] - expected) < 1e-9
    assert "transform_input" in source
