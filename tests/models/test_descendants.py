"""ZFNet, VGG, GoogLeNet, ResNet, SqueezeNet, MobileNetV2: sizes of maps, initialisation, knobs, errors, a deep net."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from minicnn.backend.select import get_ops
from minicnn.cli import main as cli
from minicnn.errors import ConfigError, ShapeError
from minicnn.evaluate.dense import dense
from minicnn.layers.conv import Conv2d
from minicnn.models import mobilenet_v2, resnet18, resnet1202
from minicnn.models.mobilenet import multiple_of_8
from minicnn.models.page import page
from minicnn.models.registry import MODELS, build, find
from minicnn.plan import LABELS, Plan
from minicnn.summary import receptive_fields
from minicnn.train.sgd import SGD
from tests.helpers.models import planned
from tests.models import families
from tests.models.families import CASES, SMALL

ROOT = Path(__file__).parents[2]
LATER = list(MODELS)[3:]                                    # the networks that came after AlexNet


# ---- tables

@pytest.mark.parametrize(("name", "layers", "widths"), [
    ("zfnet", "conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5", [110, 55, 26, 13, 13, 13, 13, 6]),
    ("zfnet:spp", "conv1 pool1 conv2 pool2 conv5 spp6 spp3 spp2 spp1", [110, 55, 26, 13, 13, 6, 3, 2, 1]),
    ("zfnet:onnx", "conv1 pool1 conv2 pool2 pool5", [109, 54, 25, 12, 6]),
    ("vgg", "conv1_1 pool1 pool2 pool3 pool4 pool5", [224, 112, 56, 28, 14, 7]),
    ("googlenet", "conv1 pool1 inception_3a inception_4a aux1_pool aux2_pool inception_5b", [112, 56, 28, 14, 4, 4, 7]),
    ("resnet50", "conv1 pool1 conv2_3_relu conv3_4_relu conv4_6_relu conv5_3_relu", [112, 56, 56, 28, 14, 7]),
    ("resnet20", "conv1 conv2_3_relu conv3_1_relu conv4_3_relu", [32, 32, 16, 8]),
    ("squeezenet1_1", "conv1 pool1 pool3 pool5 conv10", [111, 55, 27, 13, 13]),
    ("mobilenet_v2", "conv1 conv2_1_project conv3_1_project conv4_1_project conv5_1_project conv7_1_project conv9",
     [112, 112, 56, 28, 14, 7, 7])])
def test_sizes_of_maps(name, layers, widths):
    assert planned(name).widths(*layers.split()) == widths


def test_parameters_of_other_rows_of_the_papers():
    """Table 3 of ZFNet; ResNet-50 with shortcuts A and C; a ResNet whose zeros are on both sides has as many."""
    assert planned("zfnet", fc=(2048, 2048)).parameters == 28_848_232
    assert planned("zfnet", fc=(8192, 8192)).parameters == 154_542_184
    assert planned("zfnet:b", fc=(8192, 8192)).parameters == 237_560_936
    assert [planned("resnet50", shortcut=shortcut).parameters for shortcut in "ac"] == [22_780_456, 40_128_552]
    assert planned("resnet18", shortcut="c").parameters == 12_043_816
    assert planned("resnet18:a", zeros_around=True).parameters == planned("plain18").parameters == 11_515_688
    assert planned("googlenet:torchvision", five=5, aux=False).parameters == 7_005_832


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152, 20, 110])
def test_a_resnet_has_as_many_layers_as_its_name_says(depth):
    """Convolutions, without those of shortcuts, and the last layer, which is fully connected."""
    assert len(planned(f"resnet{depth}", shortcut="a").layers(Conv2d)) + 1 == depth


# Section 2.2 of the notes that the networks were built from: side and step of receptive fields.
FIELDS = {
    "alexnet": "conv1 11/4, conv2 51/8, conv3 99/16, conv4 131/16, conv5 163/16, pool5 195/32",
    "zfnet": "conv1 7/2, pool1 11/4, conv2 27/8, pool2 43/16, conv3 75/16, conv4 107/16, conv5 139/16, pool5 171/32",
    "vgg": "pool1 6/2, pool2 16/4, pool3 44/8, pool4 100/16, conv5_3 196/16, pool5 212/32, fc6 404/224",
    "resnet18": "conv1 7/2, pool1 11/4, conv2_2_sum 43/4, conv5_2_relu 435/32, fc 627/224"}


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields(name):
    small = {"alexnet": {"fc": 8, "kernels": (2,) * 5, "lrn_groups": 1}, "zfnet": {"fc": (8, 8), "kernels": (2,) * 5},
             "vgg": {"fc": 8, "blocks": ("3-2 3-2", "3-2 3-2", *("3-2 3-2 3-2",) * 3)},
             "resnet18": {"widths": (2, 3, 4, 5)}}[name]
    fields = receptive_fields(build(name, device="reference", **small))
    for entry in FIELDS[name].split(", "):
        layer, size, step = entry.replace("/", " ").split()
        assert (fields[layer].size, fields[layer].step) == ((int(size),) * 2, (int(step),) * 2), layer


def test_the_receptive_field_is_what_an_output_depends_on():
    """Measured by gradients: of an element in the middle, through branches of different kernels."""
    net = families.load(CASES["googlenet-naive"].net(device="reference", dtype="float64"))
    net.trace(np.ones((1, *net.input_shape)), train=False)
    height, channels = net.activation("inception_3a").shape[1], net.activation("inception_3a").shape[3]
    dy = np.zeros((1, height, height, channels))
    dy[0, height // 2, height // 2] = 1
    seen = np.abs(net.backward(dy, start="inception_3a", input_grad=True)).max(axis=(0, 2, 3)).nonzero()[0]
    field = receptive_fields(net)["inception_3a"]
    assert field.step == (8, 8) and 1 + seen[-1] - seen[0] <= field.size[0]


def test_the_summary_shows_branches_and_what_only_trains():
    net = CASES["googlenet"].net(device="reference")
    text = net.summary(4)
    lines = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line}
    assert lines["inception_3a_5x5_reduce"].count("<- pool2") == 1 and "<-" not in lines["inception_3a_1x1"]
    assert "<- 4 branches" in lines["inception_3a"]
    assert lines["inception_4b_1x1"].count("<- inception_4a") == 1             # not the auxiliary head above it
    assert lines["aux1_fc2"].endswith("in training only") and "only" not in lines["fc"]
    assert "weight 0.3, training only" in lines["aux1_loss"]
    aux = sum(param.data.size for name, param in net.params.items() if name.startswith("aux"))
    assert f"in training only: {aux:,} of the parameters" in text
    assert "in training only" not in CASES["resnet18"].net(device="reference").summary()
    assert "Add <- conv2_1_conv2_bn, relu1" not in text and "conv3_1_sum" not in lines


def test_the_page_is_up_to_date():
    """Otherwise: minicnn models --markdown > minicnn/models/README.md"""
    assert (ROOT / "minicnn/models/README.md").read_text(encoding="utf-8") == page()


def test_the_page_is_printed(capsys):
    assert cli.main(["models", "--markdown"]) == 0 and capsys.readouterr().out == page()
    assert "| `googlenet:paper` | 13,378,280 (6,998,552 in prediction) | 1,582.7 | - / 10.07 |" in page()
    assert "`vgg16` is `vgg:d`" in page()


def test_differences_are_in_words():
    """No name of a knob and no empty bracket; what changes nothing, as a bottleneck's stride in ResNet-18, is left out.
    """
    lines = [line for model in MODELS.values() for variant in model.variants for line in model.differences(variant)]
    assert len(lines) > 50 and [line for line in lines if "_" in line or ": )" in line or "3-64" in line] == []
    stride = "stride of a bottleneck in its 3 x 3 convolution: yes (paper: no)"
    for depth, bottleneck in (18, False), (34, False), (50, True):
        assert (stride in MODELS[f"resnet{depth}"].differences("zero-gamma")) is bottleneck
    assert MODELS["vgg"].differences("c") == ["convolutions of the five blocks: 2, 2, 3, 3, 3, of which 3 are 1 x 1 "
                                              "(net D: 2, 2, 3, 3, 3)"]


def test_what_was_reached_is_on_the_pages_of_results():
    reached = {model: row.ours for model, entry in MODELS.items() for row in entry.variants.values() if row.ours}
    results = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples/results").glob("cifar10*.md"))
    assert {"cifar_18pct", "resnet20", "plain56", "airbench93"} <= set(reached)
    for model, ours in reached.items():
        assert f" {ours.partition(',')[0]} " in results and "JPEG copy" in ours, model


def test_errors_have_the_source_that_prints_them():
    """Table 3 of the ResNet paper has no ResNet-18; Table 3 of VGG's has A and B at one training scale only."""
    resnet18, resnet34 = (MODELS[name].variants["v1"] for name in ("resnet18", "resnet34"))
    assert "error: facebookarchive/fb.resnet.torch" in resnet18.source and "3" not in resnet18.source
    assert resnet34.source == "the paper, Tables 1 and 3"
    trained = {name: row.error.partition(", ")[2] for name, row in MODELS["vgg"].variants.items() if "-bn" not in name}
    jitter = [name for name, how in trained.items() if how == "dense, trained at 256 to 512"]
    assert jitter == ["d", "c", "e"] and {trained[name] for name in ("a", "a-lrn", "b")} == {"dense, trained at 256"}


# ---- names and knobs

def test_names_of_torchvision():
    assert find("vgg16") == ("vgg", "d") and find("vgg11_bn") == ("vgg", "a-bn")
    assert find("resnet50") == ("resnet50", "v1")           # the paper's; torchvision's is
    assert find("resnet50:v1.5") == ("resnet50", "v1.5")


@pytest.mark.parametrize(("arguments", "knobs", "message"), [
    (("resnet51",), {}, "unknown model 'resnet51': did you mean"),
    (("vgg:f",), {}, "unknown variant 'f' of vgg: expected one of d, a, a-lrn"),
    (("resnet50:v2",), {}, "unknown variant 'v2' of resnet50: expected one of v1, v1.5, zero-gamma"),
    (("resnet50",), {"shortcut": "d"}, "shortcut 'd' is unknown: expected one of a, b, c"),
    (("resnet50",), {"zero_gama": True}, "resnet50 has no knob 'zero_gama': did you mean 'zero_gamma'"),
    (("vgg",), {"init": "xavier"}, "init 'xavier' is unknown: expected one of glorot"),
    (("googlenet",), {"init": "he"}, "init 'he' is unknown: expected one of xavier, normal"),
    (("zfnet",), {"after_conv": ("relu", "relu", "relu", "relu", "pol")}, "has a step 'pol'; expected relu, pool")])
def test_what_does_not_exist(arguments, knobs, message):
    with pytest.raises(ConfigError) as error:
        build(*arguments, **knobs, device="reference")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_depth_that_does_not_exist():
    from minicnn.models.resnet import cifar_resnet, resnet
    with pytest.raises(ConfigError, match="no ResNet of 20 layers for ImageNet: expected one of 18, 34, 50"):
        resnet(20)
    with pytest.raises(ConfigError, match=r"has 6n \+ 2 layers, such as 20, 32.*got 18"):
        cifar_resnet(18)


@pytest.mark.parametrize("name", ["zfnet", "zfnet:spp", "vgg", "googlenet", "squeezenet1_1"])
def test_an_image_that_is_too_small(name):
    with pytest.raises(ShapeError) as error:
        planned(name, input_size=9)
    assert str(error.value).startswith("layer '") and "\n" not in str(error.value)


def test_pixels_are_never_too_few_for_nets_that_average():
    """Padding keeps something of the smallest image."""
    for name in ("resnet18", "mobilenet_v2"):
        assert planned(name, input_size=1).widths("conv1") == [1]


def test_the_pads_of_zfnet_are_a_knob():
    """rbgirshick/py-faster-rcnn has 3 and 2, and pools of padding 1: 112, 57, 29, 15."""
    net = planned("zfnet", padding=(3, 2, 1, 1, 1), conv1_ceil=False, pool_padding=1)
    assert net.widths("conv1", "pool1", "conv2", "pool2") == [112, 57, 29, 15]
    floor = planned("zfnet", padding=(1, 0, 1, 1, 1), conv1_ceil=False)
    assert floor.widths("conv1", "pool1") == planned("zfnet").widths("conv1", "pool1")


def test_widths_of_mobilenet_are_multiples_of_8():
    assert [multiple_of_8(width) for width in (1, 12, 24, 33.6, 44, 11.9)] == [8, 16, 24, 32, 48, 16]
    assert mobilenet_v2(width=0.35, num_classes=2, input_size=33, device="reference").num_classes == 2


# ---- initialisation

def test_residual_nets_are_initialised_as_he_et_al_say():
    for variant, fan in (("v1", "in"), ("v1.5", "out")):
        net = build("resnet50", variant, device="reference", widths=(16, 16, 16, 16), input_size=33)
        w = net.params["conv2_1_conv2.w"].data
        assert w.std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.05)
        w = net.params["conv2_1_conv3.w"].data                              # 16 -> 64
        assert w.std() == pytest.approx(np.sqrt(2 / (16 if fan == "in" else 64)), rel=0.1)


def test_blocks_whose_last_gamma_is_0_are_their_shortcuts():
    net = build("resnet18:zero-gamma", device="reference", dtype="float64", input_size=51, **SMALL)
    zeros = [name for name, param in net.params.items() if name.endswith("_bn.w") and not param.data.any()]
    assert zeros == [f"conv{stage}_{block}_conv2_bn.w" for stage, block in ((2, 1), (3, 1), (3, 2), (4, 1), (5, 1))]
    x = np.random.default_rng(0).standard_normal((2, 51, 51, 3))
    seen = net.trace(x, keep=["conv3_1_relu", "conv3_2_relu", "conv3_1_shortcut_bn"])
    np.testing.assert_array_equal(seen["conv3_2_relu"], seen["conv3_1_relu"])
    np.testing.assert_array_equal(seen["conv3_1_relu"], np.maximum(seen["conv3_1_shortcut_bn"], 0))


def test_biases_of_googlenet_learn_as_in_caffe():
    params = CASES["googlenet"].net(device="reference").params
    assert (params["conv1.b"].data == np.float32(0.2)).all() and not params["fc.b"].data.any()
    assert not params["aux1_fc2.b"].data.any() and (params["aux1_fc1.b"].data == np.float32(0.2)).all()
    assert (params["conv1.b"].lr_mult, params["conv1.b"].decay_mult, params["conv1.w"].lr_mult) == (2.0, 0.0, 1.0)
    theirs = CASES["googlenet-torchvision"].net(device="reference").params
    assert theirs["aux1_fc1.b"].lr_mult == theirs["conv1_bn.b"].decay_mult == 1.0


# ---- running them

@pytest.mark.parametrize("case", ["vgg-c", "zfnet", "googlenet", "resnet18", "squeezenet"])
def test_a_larger_image_is_seen_densely(case):
    """At the size that the net was built for, the dense net is the net (VGG's dense evaluation, section 3.2)."""
    net = families.load(CASES[case].net(device="reference", dtype="float64"))
    size = net.input_shape[0]
    x = np.random.default_rng(0).standard_normal((2, size, size, 3))
    logits = dense(net, size)(x)
    np.testing.assert_allclose(logits.reshape(2, -1), net(x), rtol=1e-12, atol=1e-12)
    assert len(dense(net, size + 64)(np.zeros((1, size + 64, size + 64, 3)))) == 1


def test_the_output_layer_of_a_net_that_ends_with_an_average():
    """For --new-head and factors on its learning rate: the last layer with parameters."""
    assert CASES["squeezenet"].net(device="reference").output_params == ["conv10.w", "conv10.b"]
    assert CASES["resnet18"].net(device="reference").output_params == ["fc.w", "fc.b"]


def test_resnet_1202_is_planned_in_seconds():
    """4,800 nodes, 16,000 arrays: one comparison of each with each took a minute."""
    start, nodes = time.process_time(), planned("resnet1202").nodes
    plan = Plan(nodes, {"image": ((2, 32, 32, 3), "float32"), LABELS: ((2,), "int32")}, ["loss"],
                ops=get_ops("reference"), dtype="float32", grad=True, fuse=True)
    assert len(plan.steps) > 2400 and time.process_time() - start < 15


@pytest.mark.slow
def test_resnet_1202_takes_a_step():
    net = resnet1202(device="cpu", input_size=8)
    x, labels = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32), np.array([3, 7])
    first = net.loss(x, labels, epoch=0)
    net.backward()
    assert all(np.isfinite(param.grad).all() for param in net.params.values())
    assert net.params["conv2_1_conv1.w"].grad.any()
    SGD(net, lr=1e-4).step()
    assert net.loss(x, labels, epoch=0) < first


def test_functions_take_what_build_takes():
    net = resnet18("v1", 7, input_size=33, widths=(2, 2, 2, 2), device="reference", seed=4)
    assert net.num_classes == 7 and net.name == "resnet18-v1" and net.seed == 4
    assert net.description()["nodes"]                                       # so that checkpoints can be predicted with
