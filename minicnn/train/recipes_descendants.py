"""The recipes of ZFNet, VGG, GoogLeNet, ResNet, airbench, SqueezeNet and MobileNetV2, for minicnn/train/recipes.py.

Each family has "short" and "long" of our own, for a few thousand images, and what its paper prints ("paper") or its
most used implementation runs ("torchvision"). What of these is not expressed here is in `apart`.
"""

from __future__ import annotations

from dataclasses import replace

from minicnn.data.augment import Augment
from minicnn.data.preprocess import TORCHVISION, Preprocess
from minicnn.train.lookahead import LookaheadRecipe
from minicnn.train.recipe import NamedRecipe, Recipe, SGDRecipe
from minicnn.train.schedule import Cosine, ExponentialDecay, OneCycle, Plateau, Polynomial, StepDecay

IMAGES = 2_300                                              # that the epochs of "long" are meant for
STANDARD = Preprocess(size=None, std=(64.0, 64.0, 64.0))    # minus the mean image; a standard deviation near 1
VGG_MEAN, GOOGLENET_MEAN = (123.68, 116.779, 103.939), (123.0, 117.0, 104.0)
# Whole images, from which crops of many scales and shapes are cut; with more pixels than a crop, where that is wanted.
WHOLE = Preprocess(size=256, resize="aspect")
OF_PYTORCH = replace(TORCHVISION, size=384, resize="aspect", interpolation="bicubic")
ANY_AREA = (0.08, 1.0)                                      # of the image, at an aspect of 3/4 to 4/3
CROP_224, PAD_4 = Augment(crop=224), Augment(crop=32, pad=4)


def _ours(net: dict, optimiser: SGDRecipe, epochs: int, augment: Augment = CROP_224, images: int = IMAGES,
          **parts) -> dict:
    """A short recipe, and one that is fitted to the size of the set: the learning rate falls to 0 as half a cosine."""
    recipe = Recipe(net, augment=augment, optimiser=optimiser, schedule=Cosine(epochs=epochs, warmup=1),
                    **parts)
    return {
        "short": NamedRecipe(replace(recipe, schedule=Cosine(epochs=3)), 3, about="3 epochs on a few thousand images",
                             stretched=True),
        "long": NamedRecipe(recipe, epochs, about=f"{epochs} epochs on a few thousand images", stretched=True,
                            images=images)}


def _net(model: str, variant: str = "", classes: int = 1000) -> dict:
    return {"model": model, **({"variant": variant} if variant else {}), "num_classes": classes}


def _zfnet() -> dict[str, NamedRecipe]:
    net = _net("zfnet", "paper")
    calibrate = {"conv1": 60, "conv2": 15, "conv3": 4, "conv4": 2, "conv5": 1, "fc6": 1, "fc7": 0.3, "fc8": 0.05}
    return {
        **_ours(net, SGDRecipe(lr=0.004, batch=32), 26, calibrate=calibrate),
        "paper": NamedRecipe(
            Recipe(net, augment=Augment(crop=224), optimiser=SGDRecipe(lr=0.01, batch=128, filter_rms=0.1),
                   schedule=Plateau()), 70,
            "section 3 of the paper; the weight decay is not printed, and AlexNet's here",
            "training crops are the corners and the centre, mirrored")}


def _vgg() -> dict[str, NamedRecipe]:
    net = _net("vgg", "d")
    paper = Recipe(net, preprocess=replace(WHOLE, mean=VGG_MEAN), augment=Augment(crop=224, colour="paper"),
                   optimiser=SGDRecipe(lr=0.01, batch=256), schedule=Plateau())
    jitter = replace(paper, preprocess=replace(WHOLE, size=512, mean=VGG_MEAN, test_size=384),
                     augment=Augment(crop=224, colour="paper", scale=(256, 512)),
                     optimiser=SGDRecipe(lr=0.001, batch=256))
    return {
        **_ours(net, SGDRecipe(lr=0.002, batch=32), 26),
        "paper": NamedRecipe(
            paper, 74, "section 3.1 of the paper, a short side of 256", "nets B to E were initialised with the first "
            "four convolutions and the fully connected layers of net A"),
        "jitter": NamedRecipe(
            jitter, 74, "section 3.1 of the paper, short sides of 256 to 512; its learning rate is not printed, and "
            "that of a short side of 384 here", "begun from the net of a short side of 384 (--init-from)"),
        "torchvision": NamedRecipe(
            Recipe(_net("vgg", "d-bn"), preprocess=OF_PYTORCH, augment=Augment(crop=224, area=ANY_AREA),
                   optimiser=SGDRecipe(lr=0.01, decay=1e-4, batch=256, lr_in_velocity=False),
                   schedule=StepDecay(epochs=(30, 60))), 90,
            "pytorch/vision: references/classification/README.md (vgg: --lr 1e-2, 8 GPUs of 32)")}


def _googlenet() -> dict[str, NamedRecipe]:
    net = _net("googlenet", "paper")
    return {
        **_ours(net, SGDRecipe(lr=0.005, decay=2e-4, batch=32), 40),
        "paper": NamedRecipe(
            Recipe(net, preprocess=replace(WHOLE, size=352, mean=GOOGLENET_MEAN),
                   augment=Augment(crop=224, area=ANY_AREA), optimiser=SGDRecipe(lr=0.01, decay=2e-4, batch=32),
                   schedule=ExponentialDecay(by=0.96, every=8)),
            250, "section 6 of the paper; learning rate, weight decay, batch and epochs are not printed, and those of "
                 "BVLC/caffe: models/bvlc_googlenet/solver.prototxt",
            "the weights are averaged over steps; interpolation varies, and so do colours")}


def _resnet(model: str) -> dict[str, NamedRecipe]:
    return {
        **_ours(_net(model, "v1"), SGDRecipe(lr=0.02, batch=32), 40, preprocess=STANDARD),
        "paper": NamedRecipe(
            Recipe(_net(model, "v1"), preprocess=replace(WHOLE, size=480),
                   augment=Augment(crop=224, colour="paper", scale=(256, 480)),
                   optimiser=SGDRecipe(lr=0.1, decay=1e-4, batch=256), schedule=Plateau()), 120,
            "section 3.4 of the paper: 600,000 steps of 256"),
        "torchvision": NamedRecipe(
            Recipe(_net(model, "v1.5" if model in ("resnet50", "resnet101", "resnet152") else "v1"),
                   preprocess=OF_PYTORCH, augment=Augment(crop=224, area=ANY_AREA),
                   optimiser=SGDRecipe(lr=0.1, decay=1e-4, batch=256, lr_in_velocity=False, nesterov=True),
                   schedule=StepDecay(epochs=(30, 60))), 90,
            "facebookarchive/fb.resnet.torch: opts.lua and datasets/imagenet.lua",
            "brightness, contrast and saturation vary, and colours as in AlexNet")}


def _plain(model: str) -> dict[str, NamedRecipe]:
    """As the residual net, without a variant."""
    recipes = _resnet(model)
    return {name: replace(entry, recipe=replace(entry.recipe, net=_net(model)))
            for name, entry in recipes.items() if name != "torchvision"}


def _cifar(model: str, depth: int) -> dict[str, NamedRecipe]:
    """Section 4.2: 64,000 steps of 128, divided by ten after 32,000 and 48,000; of 50,000 images."""
    warmup = {"warmup": 1, "warmup_start": 0.1, "warmup_shape": "constant"} if depth >= 110 else {}
    net = _net(model, classes=10)
    return {
        **_ours(net, SGDRecipe(lr=0.1, decay=5e-4, batch=128), 20, augment=PAD_4, images=50_000, preprocess=STANDARD),
        "paper": NamedRecipe(
            Recipe(net, augment=PAD_4, optimiser=SGDRecipe(lr=0.1, decay=1e-4, batch=128),
                   schedule=StepDecay(epochs=(82, 123), **warmup)), 164, "section 4.2 of the paper",
            "a learning rate of 0.01 until the training error is below 80 %, here for an epoch" * bool(warmup))}


def _airbench(model: str, epochs: int, source: str, apart: str) -> dict[str, NamedRecipe]:
    """Theirs is PyTorch's SGD of the sum of the losses; here it is of the mean, with 1024 times the learning rate.

    For Nesterov momentum m they divide it by 1 + 1 / (1 - m), and the weight decay by the learning rate.
    """
    momentum = 0.85
    optimiser = SGDRecipe(lr=11.5 / (1 + 1 / (1 - momentum)), momentum=momentum, decay=0.0153 / 11.5, batch=1024,
                          lr_in_velocity=False, nesterov=True, bias_lr=64.0,
                          layer_lr={"whiten.w": 0.0, "whiten.b": 1 / 64})
    recipe = Recipe(
        _net(model, classes=10), optimiser=optimiser, whiten="whiten", freeze_after={"whiten": 3},
        preprocess=Preprocess(size=None, range=1, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        augment=Augment(crop=32, pad=2, padding="reflect", alternate=True), lookahead=LookaheadRecipe(),
        schedule=OneCycle(epochs=epochs, pct_start=0.23, div_factor=1 / 0.2, final_div_factor=0.2 / 0.07,
                          anneal="linear"))
    short = replace(recipe, optimiser=replace(optimiser, batch=128), freeze_after={"whiten": 1},
                    schedule=recipe.schedule.stretched(5, epochs))
    decay = "the weight decay of the first layer's biases, trained for three epochs, is a 64th of theirs"
    long = replace(recipe, optimiser=replace(optimiser, lr=9 / 11.5 * optimiser.lr, decay=0.012 / 9),
                   augment=replace(recipe.augment, pad=4, cutout=16),
                   schedule=OneCycle(epochs=60, pct_start=0.1, div_factor=1 / 0.2, final_div_factor=1e4,
                                     anneal="linear"))
    return {"published": NamedRecipe(recipe, epochs, f"KellerJordan/cifar10-airbench: {source}", decay + apart,
                                     stretched=True),
            "long": NamedRecipe(long, 60, about="as legacy/airbench96.py, with more epochs and larger cutouts",
                                stretched=True),
            "short": NamedRecipe(short, 5, about="5 epochs in batches of 128, on a few thousand images",
                                 stretched=True)}


def _squeezenet() -> dict[str, NamedRecipe]:
    net = _net("squeezenet1_1")
    return {
        **_ours({**net, "last_bias": 1.0}, SGDRecipe(lr=0.01, decay=2e-4, batch=32), 40, preprocess=STANDARD),
        "paper": NamedRecipe(
            Recipe(net, preprocess=Preprocess(size=None, mean=GOOGLENET_MEAN), augment=Augment(crop=224),
                   optimiser=SGDRecipe(lr=0.04, decay=2e-4, batch=512), schedule=Polynomial(epochs=68, power=1)), 68,
            "forresti/SqueezeNet: SqueezeNet_v1.1/solver.prototxt (170,000 steps of 512)",
            "images are squashed to 256 x 256, channels are BGR; crops of 227")}


def _mobilenet() -> dict[str, NamedRecipe]:
    net = _net("mobilenet_v2")
    return {
        **_ours(net, SGDRecipe(lr=0.02, decay=4e-5, batch=32), 40, preprocess=STANDARD),
        "torchvision": NamedRecipe(
            Recipe(net, preprocess=OF_PYTORCH, augment=Augment(crop=224, area=ANY_AREA),
                   optimiser=SGDRecipe(lr=0.045, decay=4e-5, batch=256, lr_in_velocity=False),
                   schedule=ExponentialDecay(by=0.98, every=1)), 300,
            "pytorch/vision: references/classification/README.md (mobilenet_v2)",
            "the paper has RMSProp and batches of 96")}


DESCENDANTS: dict[str, dict[str, NamedRecipe]] = {
    "zfnet": _zfnet(), "vgg": _vgg(), "googlenet": _googlenet(),
    **{f"resnet{depth}": _resnet(f"resnet{depth}") for depth in (18, 34, 50, 101, 152)},
    **{f"plain{depth}": _plain(f"plain{depth}") for depth in (18, 34)},
    **{f"resnet{depth}": _cifar(f"resnet{depth}", depth) for depth in (20, 32, 44, 56, 110, 1202)},
    **{f"plain{depth}": _cifar(f"plain{depth}", depth) for depth in (20, 32, 44, 56, 110)},
    "airbench93": _airbench("airbench93", 11, "airbench/lib_airbench93.py", ""),
    "airbench94": _airbench("airbench94", 10, "legacy/airbench94.py", "; 9.9 epochs"),
    "squeezenet1_1": _squeezenet(), "mobilenet_v2": _mobilenet(),
}
