"""The names that PyTorch gives to the weights of a network: those of torchvision for the nets that it has.

    AlexNet, VGG and other chains    features.0.weight, classifier.1.bias: nn.Sequential counts every module
    ResNet, GoogLeNet, SqueezeNet, MobileNetV2    by the rules below
    any other                        the layer's own name: conv1.weight

The names of a torchvision file also say of which network it is: `guess`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from minicnn.param import layer_of
from minicnn.weights import STATE

WORDS = {"w": "weight", "b": "bias", "mean": "running_mean", "var": "running_var"}
Shapes = Mapping[str, tuple[int, ...]]


def torch_names(net) -> dict[str, str]:
    """Our array, "conv1.w" or "state/bn1.mean" -> PyTorch's "features.0.weight"."""
    modules = _modules(net)
    found = {}
    for name in net.arrays():
        own = name.removeprefix(STATE)
        found[name] = f"{modules[layer_of(own)]}.{WORDS[own.rpartition('.')[2]]}"
    return found


def _modules(net) -> dict[str, str]:
    """Layer -> PyTorch's module."""
    layers = net.layers_with_arrays
    for rule in (_resnet, _googlenet, _squeezenet, _mobilenet):
        found = {layer: rule(layer, layers) for layer in layers}
        if all(found.values()) and len(set(found.values())) == len(layers) > 3:
            return found
    return _sequential(net) or {layer: layer for layer in layers}


def _sequential(net) -> dict[str, str]:
    """Of a chain with a Flatten, the places in features and classifier; {} of other nets."""
    found, part, place, before = {}, "features", 0, next(iter(net.inputs))
    for node in net.nodes:
        if node.layer.is_loss:
            continue
        if node.inputs != (before,):
            return {}
        before = node.name
        if node.layer.kind() == "Flatten":
            part, place = "classifier", 0
        else:
            found[node.name], place = f"{part}.{place}", place + 1
    return {layer: found[layer] for layer in net.layers_with_arrays} if part == "classifier" else {}


def _with_norm(name: str, conv: str, norm: str) -> str:
    """`name` is a convolution, or its batch normalisation."""
    return norm if name.endswith("_bn") else conv


def _resnet(name: str, layers: list[str]) -> str:
    if name == "fc":
        return "fc"
    if name in ("conv1", "conv1_bn"):
        return _with_norm(name, "conv1", "bn1")
    if not (match := re.fullmatch(r"conv(\d)_(\d+)_(?:conv(\d)|shortcut)(_bn)?", name)):
        return ""
    stage, block, conv = int(match[1]) - 1, int(match[2]) - 1, match[3]
    inner = _with_norm(name, f"conv{conv}", f"bn{conv}") if conv else _with_norm(name, "downsample.0", "downsample.1")
    return f"layer{stage}.{block}.{inner}"


STEM = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
BRANCHES = {"1x1": "branch1", "3x3_reduce": "branch2.0", "3x3": "branch2.1", "5x5_reduce": "branch3.0",
            "5x5": "branch3.1", "pool_proj": "branch4.1"}


def _googlenet(name: str, layers: list[str]) -> str:
    bare, inner = name.removesuffix("_bn"), _with_norm(name, "conv", "bn")
    if bare in STEM:
        return f"{STEM[bare]}.{inner}"
    if match := re.fullmatch(r"inception_(\d[a-e])_(\w+)", bare):
        return f"inception{match[1]}.{BRANCHES[match[2]]}.{inner}" if match[2] in BRANCHES else ""
    if match := re.fullmatch(r"(aux[12])_(conv|fc1|fc2)", bare):
        return f"{match[1]}.conv.{inner}" if match[2] == "conv" else f"{match[1]}.{match[2]}"
    return "fc" if name == "fc" else ""


FIRES = {"squeezenet1_1": (3, 4, 6, 7, 9, 10, 11, 12)}      # places of fire2 to fire9


def _squeezenet(name: str, layers: list[str]) -> str:
    if match := re.fullmatch(r"fire([2-9])_(squeeze|expand)(\dx\d)", name):
        kind = "squeeze" if match[2] == "squeeze" else f"expand{match[3]}"
        return f"features.{FIRES['squeezenet1_1'][int(match[1]) - 2]}.{kind}"
    return {"conv1": "features.0", "conv10": "classifier.1"}.get(name, "")


def _mobilenet(name: str, layers: list[str]) -> str:
    bare = name.removesuffix("_bn")
    if bare in ("conv1", "conv9"):
        place = {"conv1": 0, "conv9": 18}[bare]
        return f"features.{place}.{_with_norm(name, '0', '1')}"
    if name == "fc":
        return "classifier.1"
    if not (match := re.fullmatch(r"(conv\d_\d+)_(expand|depthwise|project)", bare)):
        return ""
    blocks = list(dict.fromkeys(re.sub(r"_project$", "", layer) for layer in layers if layer.endswith("_project")))
    expands = f"{match[1]}_expand" in layers
    place = {"expand": 0, "depthwise": int(expands), "project": 1 + expands}[match[2]]
    if match[2] == "project":
        inner = _with_norm(name, f"{place}", f"{place + 1}")
    else:
        inner = f"{place}.{_with_norm(name, '0', '1')}"
    return f"features.{blocks.index(match[1]) + 1}.conv.{inner}"


# ---- which net a file is of
RESNETS = {(2, 2, 2, 2, False): 18, (3, 4, 6, 3, False): 34, (3, 4, 6, 3, True): 50, (3, 4, 23, 3, True): 101,
           (3, 8, 36, 3, True): 152}
VGGS = {8: 11, 10: 13, 13: 16, 16: 19}                      # convolutions -> layers
ELSEWHERE = {"alexnet": "alexnet:torchvision", "googlenet": "googlenet:torchvision",
             **{f"resnet{depth}": f"resnet{depth}:v1.5" for (*_, bottleneck), depth in RESNETS.items() if bottleneck}}


def guess(shapes: Shapes) -> tuple[str, dict] | None:
    """(model, options of its builder) that torchvision's names and these shapes mean; None for other names."""
    for rule in (_guess_resnet, _guess_googlenet, _guess_squeezenet, _guess_mobilenet, _guess_chain):
        if found := rule(shapes):
            model, head, options = found
            return model, {"num_classes": shapes[head][0], **options} if shapes.get(head) else options
    return None


Guess = Callable[[Shapes], tuple[str, str, dict] | None]


def _guess_resnet(shapes):
    if "layer1.0.conv1.weight" not in shapes:
        return None
    blocks = [len({name.split(".")[1] for name in shapes if name.startswith(f"layer{k}.")}) for k in (1, 2, 3, 4)]
    bottleneck = "layer1.0.conv3.weight" in shapes          # whose stride is in its 3 x 3; other blocks have one place
    depth = RESNETS.get((*blocks, bottleneck))
    return (f"resnet{depth}{':v1.5' * bottleneck}", "fc.weight", {}) if depth else None


def _guess_googlenet(shapes):
    if "inception3a.branch1.conv.weight" not in shapes:
        return None
    aux = any(name.startswith("aux1.") for name in shapes)
    return "googlenet:torchvision", "fc.weight", {} if aux else {"aux": False}


def _guess_squeezenet(shapes):
    if "features.3.squeeze.weight" in shapes and shapes.get("features.0.weight", ())[-2:] == (3, 3):
        return "squeezenet1_1", "classifier.1.weight", {}
    return None


def _guess_mobilenet(shapes):
    return ("mobilenet_v2", "classifier.1.weight", {}) if "features.1.conv.0.0.weight" in shapes else None


def _guess_chain(shapes):
    first = shapes.get("features.0.weight")
    if first is None or "classifier.6.weight" not in shapes:
        return None
    if first[-2:] == (11, 11):
        return "alexnet:torchvision", "classifier.6.weight", {}
    convs = sum(len(shape) == 4 for shape in shapes.values())
    norm = any(name.endswith("running_mean") for name in shapes)
    return (f"vgg{VGGS[convs]}{'_bn' * norm}", "classifier.6.weight", {}) if convs in VGGS else None
