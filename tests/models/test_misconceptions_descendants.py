"""Common misconceptions about ZFNet, VGG, GoogLeNet and ResNet, and the facts from the papers and their code; one claim
per test. Numbers are those of Table 7 of the notes that the networks were built from, with their sources."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from minicnn.builder import Builder
from minicnn.errors import ConfigError
from minicnn.layers.batchnorm import BatchNorm2d
from minicnn.layers.combine import Add, Concat
from minicnn.layers.conv import Conv2d
from minicnn.layers.dropout import Dropout
from minicnn.layers.lrn import LRN
from minicnn.layers.pool import MaxPool2d
from minicnn.models.googlenet import MODULES
from minicnn.models.registry import MODELS, build, find
from minicnn.models.resnet import cifar_resnet
from minicnn.models.vgg import INITS
from minicnn.shapes import window_output
from minicnn.train.recipes import named_recipe
from minicnn.visualize import rules
from minicnn.visualize.projection import project
from tests.helpers.models import planned
from tests.visualize.test_projection import two_layers


def names(net) -> list[str]:
    return [node.name for node in net.nodes]


# ---- ZFNet

def test_zfnet_has_512_1024_and_512_maps_in_layers_3_to_5():
    """That is row (b) of Table 3; Figure 3, the net of the paper, has 384, 384 and 256."""
    assert planned("zfnet").channels("conv3", "conv4", "conv5") == [384, 384, 256]
    assert planned("zfnet:b").channels("conv3", "conv4", "conv5") == [512, 1024, 512]
    assert MODELS["zfnet"].variants["paper"].parameters == 62_357_608


def test_zfnets_first_layer_has_stride_1():
    """The stride went from 4 to 2, and in the second layer from 1 to 2; kernels from 11 to 7, and no groups (4.1)."""
    for name, wanted in ("alexnet", [(11, 4, 1), (5, 1, 2)]), ("zfnet", [(7, 2, 1), (5, 2, 1)]):
        first = planned(name).layers(Conv2d)[:2]
        assert [(layer.kernel[0], layer.stride[0], layer.groups) for layer in first] == wanted


def test_zfnet_normalises_before_pooling_or_within_maps():
    """Figure 3: pooling, then contrast normalisation across maps; other implementations have another order."""
    assert names(planned("zfnet"))[:8] == ["conv1", "relu1", "pool1", "norm1", "conv2", "relu2", "pool2", "norm2"]
    assert len(planned("zfnet").layers(LRN)) == 2
    assert names(planned("zfnet:onnx"))[:4] == ["conv1", "relu1", "norm1", "pool1"]


def test_the_zfnet512_of_the_onnx_zoo_is_zfnet():
    """It has other maps, an fc7 of 1024, pools that round down, and 87 million parameters."""
    zoo, paper = planned("zfnet:onnx"), planned("zfnet")
    assert zoo.widths("conv1", "pool1", "conv2", "pool2") == [109, 54, 25, 12]
    assert paper.widths("conv1", "pool1", "conv2", "pool2") == [110, 55, 26, 13]
    assert (zoo.parameters, zoo["fc7"].out_features) == (87_250_536, 1024)


def test_zfnet_reached_11_7_percent():
    """Those are unpublished nets of Clarifai. The paper's nets reach 16.5 and 16.0 on the validation images."""
    assert [MODELS["zfnet"].variants[name].error for name in ("paper", "b")] == ["38.4 / 16.5", "37.5 / 16.0"]


def test_a_deconvnet_is_the_gradient_or_guided_backpropagation_of_a_whole_map():
    """No: the rules differ at a ReLU with x and R of opposite signs, and agree where R > 0 exactly where x > 0. The
    "deconvolution" of some packages is guided backpropagation of the sum of a map."""
    b = Builder((1, 1, 2))
    b.linear("fc2", 1, input=b.flatten("flat", input=b.relu("relu1", input=b.conv("conv1", 2, 1))))
    net = b.net(device="reference", dtype="float64")
    net.params["conv1.w"].data[...] = np.eye(2)
    x = np.array([[[[2.0, -1.0]]]])                                     # inputs of the ReLU
    net.params["fc2.w"].data[...] = [[-1.0], [3.0]]                     # R: opposite signs
    net.params["fc2.b"].data[...] = 5.0
    found = {rule: (got := project(net, x, "fc2", 0, rule=rule)).pixels.ravel() / got.values[0] for rule in rules.RULES}
    np.testing.assert_allclose(found["backprop"], [-1, 0])
    np.testing.assert_allclose(found["guided"], [0, 0])
    np.testing.assert_allclose(found["deconvnet"], [0, 3])
    net.params["fc2.w"].data[...] = [[1.0], [-3.0]]                     # the same signs as x
    same = [project(net, x, "fc2", 0, rule=rule).pixels for rule in rules.RULES]
    np.testing.assert_array_equal(same[0], same[1])
    np.testing.assert_array_equal(same[0], same[2])

    net = two_layers("reference")
    x = np.random.default_rng(5).standard_normal((1, 5, 5, 2))
    one = project(net, x, "conv3", 1).pixels
    net.trace(x, "conv3")
    whole = np.zeros((1, 2, 2, 4))
    whole[..., 1] = 1
    map_sum = net.backward(whole, start="conv3", rules={"ReLU": rules.guided}, input_grad=True)
    assert abs(np.corrcoef(one.ravel(), map_sum.ravel())[0, 1]) < 0.95


def test_only_alexnet_halves_the_outputs_of_dropout_at_test_time():
    """It is the rule of Hinton et al. (2012), which ZFNet's time used, too; most later code scales in training."""
    drops = {name: planned(name).layers(Dropout)[0] for name in ("zfnet", "vgg")}
    assert (drops["zfnet"].test_factor, drops["vgg"].test_factor) == (0.5, 1.0)


# ---- VGG

def test_every_convolution_of_vgg_is_3_x_3():
    """Net C has three of 1 x 1, without padding; all keep the size, and pools halve it (Table 1)."""
    kernels = [(layer.kernel[0], layer.padding[0]) for layer in planned("vgg:c").layers(Conv2d)]
    assert kernels.count((1, 0)) == 3 and kernels.count((3, 1)) == 10
    for variant in "abde":
        assert {layer.kernel for layer in planned(f"vgg:{variant}").layers(Conv2d)} == {(3, 3)}
    assert {(pool.kernel, pool.stride) for pool in planned("vgg").layers(MaxPool2d)} == {((2, 2), (2, 2))}


def test_vgg_was_initialised_with_a_standard_deviation_of_0_01():
    """Section 3.1 prints a *variance* of 0.01: in net A it multiplies the signal by 6e5, and 0.01 by 6e-6."""
    net = planned("vgg:a")
    fans = [np.prod(shape[:-1]) for node in net.nodes for name, (_, shape) in node.layer.initial_values().items()
            if name == "w"]
    def growth(init):
        return np.prod([init.std * np.sqrt(fan / 2) for fan in fans]) * np.sqrt(2)     # no ReLU after the last
    assert growth(INITS["variance"][0]) == pytest.approx(6e5, rel=0.1)
    assert growth(INITS["std"][0]) == pytest.approx(6e-6, rel=0.1)


def test_vgg_16_was_trained_from_random_weights():
    """Its first four convolutions and fully connected layers were those of net A (section 3.1)."""
    assert "initialised with the first four convolutions and the fully connected layers of net A" in \
        named_recipe("vgg", "paper").apart


# ---- GoogLeNet

def test_googlenet_has_5_million_parameters_12_times_fewer_than_alexnet():
    """6,998,552 in prediction, 8.7 times fewer; in training there are two auxiliary classifiers."""
    net = planned("googlenet")
    assert net.parameters - net.parameters_in_training_only == 6_998_552 and net.parameters == 13_378_280
    assert planned("alexnet").parameters / 6_998_552 == pytest.approx(8.7, abs=0.05)


def test_an_inception_module_adds_the_outputs_of_its_branches():
    """Their channels are put side by side, of different numbers; the 1 x 1 convolutions reduce numbers of channels."""
    net = planned("googlenet")
    joins = net.layers(Concat)
    assert len(joins) == 9 and not net.layers(Add)
    assert net.channels("inception_3a_1x1", "inception_3a_3x3", "inception_3a_5x5", "inception_3a_pool_proj",
                        "inception_3a") == [64, 128, 32, 32, 256]
    assert net.channels(*(f"inception_{name}" for name in MODULES)) == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert planned("googlenet:naive").channels("inception_3a", "inception_3b") == [416, 832]


def test_the_5_x_5_branch_has_kernels_of_3_x_3():
    """torchvision's and TF-slim's has (pytorch/vision#906), not the paper's."""
    def kernels(name):
        return {layer.kernel for layer in planned(name).layers(Conv2d, "inception_3a_5x5") if layer.kernel != (1, 1)}
    assert (kernels("googlenet"), kernels("googlenet:torchvision")) == ({(5, 5)}, {(3, 3)})


def test_pools_of_googlenet_round_down():
    """They round up: 56, 28, 14, 7 (down: 55, 27, 13, 6). That of ResNet, with padding, rounds down: up would be 57."""
    assert planned("googlenet").widths("conv1", "pool1", "pool2", "pool3", "pool4") == [112, 56, 28, 14, 7]
    down = [112]
    while len(down) < 5:
        down.append(window_output((down[-1],) * 2, 3, 2)[0][0])
    assert down == [112, 55, 27, 13, 6]
    assert planned("resnet18").widths("conv1", "pool1") == [112, 56]
    assert window_output((112, 112), 3, 2, 1, ceil=True)[0] == (57, 57)


def test_googlenet_predicts_with_all_three_classifiers_and_dropout_of_0_2():
    """The auxiliary ones only train, at 0.3 of the loss; dropout is 0.4 before the main one, 0.7 in them (Table 1)."""
    net = planned("googlenet")
    assert not [node for node in net.in_prediction if node.name.startswith("aux")]
    losses = {node.name: (node.layer.weight, node.layer.train_only) for node in net.nodes if node.layer.is_loss}
    assert losses == {"aux1_loss": (0.3, True), "aux2_loss": (0.3, True), "loss": (1.0, False)}
    assert [node.layer.rate for node in net.nodes if isinstance(node.layer, Dropout)] == [0.7, 0.7, 0.4]


# ---- ResNet

def test_deep_plain_nets_degrade_because_gradients_vanish():
    """With batch normalisation they do not: the first gradient of a plain net of 56 layers is about as large as its
    last (section 4.1 found "healthy norms")."""
    net = build("plain56", device="cpu", input_size=16)
    x = np.random.default_rng(0).standard_normal((16, 16, 16, 3)).astype(np.float32)
    net.loss(x, np.arange(16) % 10)
    net.backward()
    first, last = (np.linalg.norm(net.params[f"{name}.w"].grad) for name in ("conv2_1_conv1", "conv4_9_conv2"))
    assert first > 0.1 * last


def test_a_block_needs_inputs_and_outputs_of_one_shape():
    """Where shapes differ, the shortcut is A, which pads with zeros, or B, a 1 x 1 convolution (section 3.3)."""
    for name, kind in ("resnet18:a", "Subsample"), ("resnet18", "Conv2d"):
        net = planned(name)
        assert type(net["conv3_1_shortcut"]).__name__ == kind
        assert net.builder.shape("conv2_2_relu")[1:] == (56, 56, 64) and net.builder.shape("conv3_1_sum")[1] == 28


def test_more_than_1000_layers_cannot_be_trained():
    """ResNet-1202 was: training error below 0.1 %, test error 7.93 %. A step of it is in test_descendants.py."""
    net = planned("resnet1202")
    assert len(net.layers(Conv2d)) + 1 == 1202 and MODELS["resnet1202"].variants[""].error == "7.93 %"


def test_resnet_50_has_4_1_gflops_and_its_stride_in_the_3_x_3_convolution():
    """That is v1.5, of torchvision; the paper's has 3.86 (printed 3.8), and the stride in the first 1 x 1."""
    def strides(name):
        return [planned(name)[f"conv3_1_conv{number}"].stride[0] for number in (1, 2, 3)]
    assert (strides("resnet50"), strides("resnet50:v1.5")) == ([2, 1, 1], [1, 2, 1])
    assert planned("resnet50").macs / 1e9 == pytest.approx(3.86, abs=0.005)
    assert planned("resnet50:v1.5").macs / 1e9 == pytest.approx(4.09, abs=0.005)


def test_there_is_a_resnet_34_v1_5():
    """Basic blocks have one form: the stride is in the first of two 3 x 3 convolutions."""
    with pytest.raises(ConfigError, match="unknown variant 'v1.5' of resnet34"):
        find("resnet34:v1.5")
    assert planned("resnet34", stride_3x3=True).macs == planned("resnet34").macs
    assert planned("resnet34", stride_3x3=True)["conv3_1_conv1"].stride == (2, 2)


def test_resnet_18_with_64_to_512_maps_is_the_papers_net_for_cifar_10():
    """That one has 11 million parameters and 555 M multiply-adds; the paper's ResNet-20 has 0.27 million and 41 M, and
    shortcut A (B would be 2,752 more)."""
    usual = planned(partial(cifar_resnet, 14), widths=(64, 128, 256, 512), shortcut="b")
    assert (usual.parameters, usual.macs) == (11_173_962, 555_422_720)
    paper = planned("resnet20")
    assert (paper.parameters, paper.macs) == (269_722, 40_551_040)
    assert planned("resnet20", shortcut="b").parameters == paper.parameters + 2_752


def test_3_8_gflops_are_3_8e9_operations():
    """The paper counts multiply-adds (section 3.3): of the first convolution 112 x 112 x 64 x 7 x 7 x 3."""
    first = planned("resnet50")["conv1"].plan([(1, 224, 224, 3)], "float32", build("cifar_18pct").ops)
    assert first.macs == 112 * 112 * 64 * 7 * 7 * 3


def test_batch_normalisation_trains_with_the_unbiased_variance():
    """It normalises with the biased one and stores the unbiased one (Algorithm 1 and section 3.1 of its paper)."""
    x = np.array([0.0, 1.0, 2.0, 5.0]).reshape(4, 1)
    layer = BatchNorm2d(1, momentum=1.0, eps=1e-12)
    y = layer(x, train=True)
    np.testing.assert_allclose(y, (x - 2) / np.sqrt(x.var()), rtol=1e-6)
    assert layer.state["var"][0] == pytest.approx(x.var(ddof=1))


# ---- all

def test_relu_was_first_used_in_alexnet():
    """Nair and Hinton, ICML 2010, whom section 3.1 of the AlexNet paper cites for it; it compares with tanh, which the
    small net has here, too."""
    assert build("cifar_paper", activation="tanh", input_size=8, device="reference")["tanh1"] is not None
