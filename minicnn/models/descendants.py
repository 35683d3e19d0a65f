"""The declarations of ZFNet, VGG, GoogLeNet, ResNet, airbench, SqueezeNet and MobileNetV2, for registry.py.

Published errors are those of the papers' own tables, with the way of testing; where a variant is an implementation's,
that one's. Without more words they are of one central crop.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from minicnn.models import airbench, resnet
from minicnn.models.googlenet import Knobs as GoogLeNetKnobs
from minicnn.models.googlenet import differences as googlenet_differences
from minicnn.models.googlenet import googlenet
from minicnn.models.knobs import names_of
from minicnn.models.mobilenet import mobilenet_v2
from minicnn.models.model import CIFAR10, Model, Variant
from minicnn.models.squeezenet import squeezenet1_1
from minicnn.models.vgg import Knobs as VGGKnobs
from minicnn.models.vgg import differences as vgg_differences
from minicnn.models.vgg import vgg
from minicnn.models.zfnet import Knobs as ZFNetKnobs
from minicnn.models.zfnet import differences as zfnet_differences
from minicnn.models.zfnet import zfnet

ZFNET = {
    "paper": Variant("paper", 62_357_608, "38.4 / 16.5", "the paper, Figure 3 and Table 2", macs=1_168_032_896),
    "b": Variant("paper", 107_627_624, "37.5 / 16.0", "the paper, Table 2 (b)", macs=2_476_704_896),
    "spp": Variant("paper", 77_037_672, "not published for these files",
                   "ShaoqingRen/SPP_net: model-defs/Zeiler_conv5.prototxt; arXiv 1406.4729", macs=1_182_712_960),
    "onnx": Variant("paper", 87_250_536, "not published", "ONNX model zoo: zfnet512", macs=1_481_727_008),
}

# Section 4.1, tested at one scale: the short side of training, or with scale jitter the mean of its two ends
AT_256, JITTER = "dense, trained at 256", "dense, trained at 256 to 512"
VGG = {
    "d": Variant("paper", 138_357_544, f"25.6 / 8.1, {JITTER}", "the paper, Tables 1 and 3", macs=15_470_264_320),
    "a": Variant("paper", 132_863_336, f"29.6 / 10.4, {AT_256}", "the paper, Tables 1 and 3", macs=7_609_090_048),
    "a-lrn": Variant("paper", 132_863_336, f"29.7 / 10.5, {AT_256}", "the paper, Tables 1 and 3",
                     macs=7_609_090_048),
    "b": Variant("paper", 133_047_848, f"28.7 / 9.9, {AT_256}", "the paper, Tables 1 and 3", macs=11_308_466_176),
    "c": Variant("paper", 133_638_952, f"27.3 / 8.8, {JITTER}", "the paper, Tables 1 and 3", macs=11_770_888_192),
    "e": Variant("paper", 143_667_240, f"25.5 / 8.0, {JITTER}", "the paper, Tables 1 and 3", macs=19_632_062_464),
    **{f"{net}-bn": Variant("torchvision", parameters, error, "pytorch/vision: models/vgg.py", macs=macs)
       for net, parameters, error, macs in (("a", 132_868_840, "29.63 / 10.19", 7_609_090_048),
                                            ("b", 133_053_736, "28.41 / 9.63", 11_308_466_176),
                                            ("d", 138_365_992, "26.64 / 8.48", 15_470_264_320),
                                            ("e", 143_678_248, "25.78 / 8.16", 19_632_062_464))},
}

GOOGLENET = {
    "paper": Variant("paper", 13_378_280, "- / 10.07", "the paper, Tables 1 and 3; BVLC/caffe: models/bvlc_googlenet",
                     macs=1_582_671_872, auxiliary=6_379_728),
    "torchvision": Variant("paper", 13_004_888, "30.22 / 10.47", "pytorch/vision: models/googlenet.py",
                           macs=1_498_376_192, auxiliary=6_379_984),
    "naive": Variant("paper", 104_274_376, "not published", "the paper, Figure 2 (a)", macs=12_568_061_056,
                     auxiliary=6_748_368),
}

OF_TORCH = "error: facebookarchive/fb.resnet.torch"


def _resnet(depth: int, parameters: int, macs: tuple[int, int], errors: tuple[str, str], **more: Variant) -> Model:
    """macs, errors: of v1 and of v1.5; a net of basic blocks has no v1.5, and its v1 is torchvision's, too."""
    source = "the paper, Tables 1 and 3" if depth > 18 else f"the paper, Table 1; {OF_TORCH}"     # Table 3 has no 18
    rows = {"v1": Variant("paper", parameters, errors[0], source, macs=macs[0])}
    if depth >= 50:
        rows["v1.5"] = Variant("torchvision", parameters, errors[1], f"pytorch/vision: models/resnet.py; {OF_TORCH}",
                               macs=macs[1])
    rows |= more
    rows["zero-gamma"] = Variant("torchvision", parameters, "not published", "arXiv 1706.02677, section 5.1",
                                 macs=macs[1])
    return _model(f"ResNet-{depth}", getattr(resnet, f"resnet{depth}"), rows,
                  differences=partial(resnet.differences, depth))


def _model(title: str, function, rows: dict[str, Variant], knobs=resnet.Knobs, **options) -> Model:
    """A network whose rows have the names of its variants."""
    rows = {variant: replace(row, knobs={"variant": variant} if variant else {}) for variant, row in rows.items()}
    return Model(title, function, rows, changes=tuple(names_of(knobs)), **options)


TEN = "ten crops"
SHORTCUTS = {
    18: {"a": Variant("paper", 11_515_688, f"27.88 / -, {TEN}", "the paper, Table 2", macs=1_794_805_760)},
    34: {"a": Variant("paper", 21_623_848, f"25.03 / 7.76, {TEN}", "the paper, Table 3", macs=3_644_493_824),
         "c": Variant("paper", 22_716_840, f"24.19 / 7.40, {TEN}", "the paper, Table 3", macs=3_830_747_136)},
}

RESNETS = {f"resnet{row[0]}": _resnet(*row, **SHORTCUTS.get(row[0], {})) for row in (
    (18, 11_689_512, (1_814_073_344,) * 2, ("30.43 / 10.76 by fb.resnet.torch", "")),
    (34, 21_797_672, (3_663_761_408,) * 2, (f"24.52 / 7.46, {TEN}", "")),
    (50, 25_557_032, (3_857_973_248, 4_089_184_256), (f"22.85 / 6.71, {TEN}", "24.01 / 7.02")),
    (101, 44_549_160, (7_570_194_432, 7_801_405_440), (f"21.75 / 6.05, {TEN}", "22.44 / 6.21")),
    (152, 60_192_808, (11_282_415_616, 11_513_626_624), (f"21.43 / 5.71, {TEN}", "22.16 / 6.16")),
)}
PLAIN = {f"plain{depth}": _model(f"Plain-{depth}", getattr(resnet, f"plain{depth}"), {
    "": Variant("paper", parameters, f"{error}, {TEN}", f"the paper, Table {table}", macs=macs)})
    for depth, parameters, error, table, macs in ((18, 11_515_688, "27.94 / -", 2, 1_794_805_760),
                                                  (34, 21_623_848, "28.54 / 10.02", 3, 3_644_493_824))}

CIFAR = {20: (269_722, "8.75 %", 40_551_040), 32: (464_154, "7.51 %", 68_862_592), 44: (658_586, "7.17 %", 97_174_144),
         56: (853_018, "6.97 %", 125_485_696), 110: (1_727_962, "6.43 %, the best of five", 252_887_680),
         1202: (19_421_274, "7.93 %", 2_829_238_912)}
# Our own recipe, the last epoch: examples/results/cifar10_descendants.md
OURS = {name: f"{error}, own recipe, 8 epochs (the paper's: 164), {runs}, on a JPEG copy" for name, error, runs in (
    ("resnet20", "18.49 %", "mean of 2"), ("resnet56", "17.41 %", "one run"),
    ("plain20", "21.77 %", "mean of 2"), ("plain56", "49.41 %", "one run"))}


def _cifar(kind: str, depth: int, error: str, source: str) -> Model:
    (parameters, _, macs), name = CIFAR[depth], f"{kind.lower()}{depth}"
    return _model(f"{kind}-{depth} for CIFAR-10", getattr(resnet, name), {
        "": Variant("paper", parameters, error, source, macs=macs, ours=OURS.get(name, ""))},
        tested_on=CIFAR10, image_size=32)


CIFAR_NETS = {f"resnet{depth}": _cifar("ResNet", depth, row[1], "the paper, Table 6") for depth, row in CIFAR.items()}
CIFAR_NETS |= {f"plain{depth}": _cifar("Plain", depth, "over 60 %" if depth == 110 else "a curve without numbers",
                                       "the paper, section 4.2 and Figure 6") for depth in CIFAR if depth != 1202}

AIRBENCH = {f"airbench{percent}": Model(f"airbench{percent}", function, {
    "": Variant("published", parameters, error, source, macs=macs, ours=ours)},
    tested_on=CIFAR10, image_size=32, changes=tuple(names_of(airbench.Knobs)))
    for percent, function, parameters, macs, error, ours, source in (
        (93, airbench.airbench93, 569_016, 54_223_904, "7.00 %, six views, mean of 50",
         "10.74 %, six views, mean of 3, on a JPEG copy", "KellerJordan/cifar10-airbench: airbench/lib_airbench93.py"),
        (94, airbench.airbench94, 1_971_640, 118_147_360, "5.99 %, six views, mean of 1000",
         "7.99 %, six views, recipe long, on a JPEG copy",
         "KellerJordan/cifar10-airbench: legacy/airbench94.py"))}

DESCENDANTS: dict[str, Model] = {
    "zfnet": _model("ZFNet", zfnet, ZFNET, ZFNetKnobs, differences=zfnet_differences),
    "vgg": _model("VGG", vgg, VGG, VGGKnobs, differences=vgg_differences, aliases={
        "vgg11": "a", "vgg13": "b", "vgg16": "d", "vgg19": "e",
        "vgg11_bn": "a-bn", "vgg13_bn": "b-bn", "vgg16_bn": "d-bn", "vgg19_bn": "e-bn"}),
    "googlenet": _model("GoogLeNet", googlenet, GOOGLENET, GoogLeNetKnobs, differences=googlenet_differences),
    **RESNETS, **PLAIN, **CIFAR_NETS, **AIRBENCH,
    "squeezenet1_1": Model("SqueezeNet 1.1", squeezenet1_1, {
        "": Variant("paper", 1_235_496, "41.82 / 19.38 by torchvision", "forresti/SqueezeNet: SqueezeNet_v1.1",
                    macs=349_151_936)}),
    "mobilenet_v2": Model("MobileNetV2", mobilenet_v2, {
        "": Variant("torchvision", 3_504_872, "28.0 / -", "the paper, Tables 2 and 4", macs=300_774_272)}),
}
