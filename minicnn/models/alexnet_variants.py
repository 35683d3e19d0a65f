"""The differences between AlexNet implementations: the paper, its authors' own code, and the most common ones.

The default of a knob (an option) is the value in the paper, with the section beside it. A variant is a row that changes
some knobs, with the source file of each change. `differences` describes a variant in words; training prints it.

  authors       akrizhevsky, released by the Computer History Museum: layers/layers-145.cfg, layer-params-145.cfg
  caffe         BVLC/caffe: models/bvlc_alexnet/train_val.prototxt
  ungrouped     the paper without its two GPUs, as many re-implementations have it
  torchvision   pytorch/vision: torchvision/models/alexnet.py, after "One weird trick" (arXiv 1404.5997)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from minicnn.models import knobs


@dataclass(frozen=True)
class Knobs:
    """The options of AlexNet. Tuples have one entry per layer."""

    # geometry
    input_size: int = 224                                   # section 3.5 and Figure 2
    conv1_padding: int = 0                                  # not mentioned, so none
    ceil: bool = True                                       # the last window may pass the edge, as in the authors'
                                                            # code: 224 gives the 55 of Figure 2 (floor needs 227)
    kernels: tuple[int, ...] = (96, 256, 384, 384, 256)     # section 3.5
    groups: int = 2                                         # of conv2, conv4, conv5: the GPUs, section 3.2 and Figure 2
    fc: int = 4096                                          # section 3.5: units of each hidden fully connected layer
    # the layers after each convolution, in this order
    after_conv: tuple[str, ...] = ("relu lrn pool",         # section 3.5: normalisation after layers 1 and 2, pooling
                                   "relu lrn pool",         # after these and layer 5; 3.3: normalised after the ReLU
                                   "relu", "relu", "relu pool")
    # local response normalisation, section 3.3: n = 5, beta = 0.75
    lrn_k: float = 2.0
    lrn_alpha: float = 1e-4
    lrn_divide_alpha: bool = False                          # the printed formula does not divide alpha by n
    lrn_groups: int = 2                                     # Figure 2: each GPU normalises its own maps; 1 is the text,
                                                            # "N is the total number of kernels in the layer"
    # dropout, section 4.2: after the first two fully connected layers; outputs times 0.5 at test time
    dropout: float = 0.5
    dropout_before: bool = False                            # True: before fc6 and fc7 instead of after them
    dropout_inverted: bool = False                          # True: times 2 in training, unchanged at test time
    # initialisation, section 5
    std: tuple[float, ...] | None = (0.01,) * 8             # None: U(-1/sqrt(fan in), 1/sqrt(fan in)), biases too
    bias: float = 1.0                                       # of the layers below; 0 in the others
    bias_layers: tuple[int, ...] = (2, 4, 5, 6, 7)
    # factors on the learning rate and the weight decay of biases; section 5 has one of each for all
    bias_lr: float = 1.0
    bias_decay: float = 1.0


PAPER = Knobs()

VARIANTS: dict[str, Knobs] = {
    "paper": PAPER,

    "authors": replace(                                     # layers-145.cfg unless noted
        PAPER,
        after_conv=("lrn pool relu",                        # conv1a has no neuron, pool1a has neuron=relu
                    "relu lrn lrn_within pool",             # cnorm2a: rnorm, 5 x 5, scale .001, pow .75
                    "relu", "relu", "pool relu"),           # pool3a has neuron=relu
        lrn_divide_alpha=True,                              # layer.py, NormLayerParser: scale /= size
        std=(0.01, 0.01) + (0.03,) * 3 + (0.01,) * 3,       # initW
        bias_lr=2.0,                                        # layer-params-145.cfg: epsB 0.02, epsW first 0.01
        bias_decay=0.0,                                     # layer.cu: the Weights object of biases is made with wc = 0
    ),

    "caffe": replace(                                       # train_val.prototxt
        PAPER,
        input_size=227, ceil=False,                         # crop_size: 227
        lrn_k=1.0,                                          # LRNParameter.k of caffe.proto, not set in the file
        lrn_divide_alpha=True,                              # lrn_layer.cpp: alpha / size
        lrn_groups=1,                                       # one LRN layer over all channels
        dropout_inverted=True,                              # dropout_layer.cpp: scale 1 / (1 - ratio)
        std=(0.01,) * 5 + (0.005, 0.005, 0.01),             # weight_filler
        bias=0.1,                                           # bias_filler; readme.md: 1 "gave flat loss"
        bias_lr=2.0, bias_decay=0.0,                        # lr_mult: 2, decay_mult: 0
    ),

    "ungrouped": replace(PAPER, groups=1, lrn_groups=1),

    "torchvision": replace(                                 # alexnet.py
        PAPER,
        conv1_padding=2, ceil=False,                        # Conv2d(3, 64, kernel_size=11, stride=4, padding=2)
        kernels=(64, 192, 384, 256, 256), groups=1,
        after_conv=("relu pool", "relu pool", "relu", "relu", "relu pool"),     # no normalisation
        dropout_before=True, dropout_inverted=True,         # Dropout() before each Linear except the last
        std=None,                                           # the default: torch.nn.Conv2d and Linear, reset_parameters
    ),
}


def knobs_of(variant: str = "paper", **changes) -> Knobs:
    """The knobs of a variant, with some overridden. Raises ConfigError for an unknown name."""
    return knobs.knobs_of("AlexNet", VARIANTS, variant, **changes)


def differences(variant: str = "paper", **changes) -> list[str]:
    """The differences of a variant from the paper, one line per knob; empty if there are none."""
    return knobs.differences(PAPER, knobs_of(variant, **changes))
