"""The operators of ONNX, by version, as operations of the neutral graph. Settings that later versions have as inputs
are left to lower.py, which takes either."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn.errors import CheckpointError
from minicnn.interop.formats.onnx.schema import TYPES
from minicnn.interop.formats.stored import DTYPES

Attrs = dict
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
             "DynamicQuantizeLinear")
ADVICE = {**dict.fromkeys(QUANTISED, "this is a quantised model; import the float model that it was made from"),
          **dict.fromkeys(("Loop", "Scan", "SequenceAt", "SequenceConstruct"), "loops are not here; export the model "
                          "with fixed shapes"),
          **dict.fromkeys(("ConvTranspose", "Resize", "Upsample"), "minicnn classifies images; layers that enlarge "
                          "maps are not here"),
          **dict.fromkeys(("PRelu", "HardSwish", "HardSigmoid", "Selu", "Elu", "Softplus"), "this activation is "
                          "not here; known are Relu, LeakyRelu, Clip from 0, Gelu, Tanh and Sigmoid"),
          "InstanceNormalization": "known are BatchNormalization and LRN",
          "LayerNormalization": "known are BatchNormalization and LRN"}
DOMAINS = {"com.microsoft": "onnxruntime fused or quantised this model; import the file from before that"}


def _window(a: Attrs) -> dict:
    return {"stride": a.get("strides"), "pads": a.get("pads"), "auto_pad": a.get("auto_pad", "NOTSET"),
            "dilation": a.get("dilations")}


def _pool(a: Attrs, opset: int) -> dict:
    kernel = a.get("kernel_shape")
    if not kernel:
        raise CheckpointError("has no kernel_shape")
    stride = a.get("strides") or [1] * len(kernel)          # not the kernel's size
    counts = a.get("count_include_pad", 0) if opset >= 7 else 0
    return {**_window(a), "kernel": tuple(kernel), "stride": tuple(stride), "ceil": bool(a.get("ceil_mode", 0)),
            "count": "padding" if counts else "image"}


def _reduce(a: Attrs, opset: int) -> dict:
    return {"keepdims": a.get("keepdims", 1), **({"axes": a["axes"]} if "axes" in a else {})}


def _batchnorm(a: Attrs, opset: int) -> dict:
    per_pixel = opset < 9 and a.get("spatial", 1) == 0
    return {"eps": a.get("epsilon", 1e-5), "momentum": round(1 - a.get("momentum", 0.9), 6), "per_pixel": per_pixel,
            "training": bool(a.get("training_mode", 0))}


def _binary(a: Attrs, opset: int) -> dict:
    return {"axis": a["axis"]} if opset < 7 and a.get("broadcast") and "axis" in a else {}


def _gemm(a: Attrs, opset: int) -> dict:
    return {"alpha": a.get("alpha", 1.0), "beta": a.get("beta", 1.0), "transposed": a.get("transB", 0),
            "transposed_input": a.get("transA", 0)}


def _softmax(a: Attrs, opset: int) -> dict:
    return {"axis": a.get("axis", 1 if opset < 13 else -1), "flattens": opset < 13}


def _pad(a: Attrs, opset: int) -> dict:
    pads = a.get("pads", a.get("paddings"))
    return {"mode": a.get("mode", "constant"), **({"pads": pads} if pads else {}),
            **({"value": a["value"]} if "value" in a else {})}


def _cast(a: Attrs, opset: int) -> dict:
    kind = TYPES.get(a.get("to"))
    if kind is None:
        raise CheckpointError(f"makes the type {a.get('to')} of it")
    return {"to": np.dtype("f4" if kind in ("F64", "F16", "BF16") else "?" if kind == "BOOL" else DTYPES[kind])}


def _constant(a: Attrs, opset: int) -> dict:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in a:
            value = a[name]
            return {"value": value if not isinstance(value, (int, float, list)) else np.asarray(
                value, np.float32 if "float" in name else np.int64)}
    raise CheckpointError("has no value that can be read here, such as a sparse one or text")


def _copied(*names: str) -> Callable[[Attrs, int], dict]:
    return lambda a, opset: {name: a[name] for name in names if name in a}


NONE = _copied()
OPERATORS: dict[str, tuple[str, Callable[[Attrs, int], dict]]] = {
    "Conv": ("conv", lambda a, opset: {**_window(a), "groups": a.get("group", 1)}),
    "MaxPool": ("maxpool", _pool), "AveragePool": ("avgpool", _pool),
    "GlobalAveragePool": ("globalpool", lambda a, opset: {"how": "mean"}),
    "GlobalMaxPool": ("globalpool", lambda a, opset: {"how": "max"}),
    "ReduceMean": ("reducemean", _reduce),
    "LRN": ("lrn", lambda a, opset: {"n": a["size"], "k": a.get("bias", 1.0), "alpha": a.get("alpha", 1e-4),
                                     "beta": a.get("beta", 0.75)}),
    "BatchNormalization": ("batchnorm", _batchnorm),
    "Dropout": ("dropout", lambda a, opset: {"rate": a.get("ratio", 0.5)} if opset < 12 else {}),
    "Gemm": ("gemm", _gemm), "MatMul": ("matmul", NONE),
    "Flatten": ("flatten", lambda a, opset: {"axis": a.get("axis", 1)}),
    "Reshape": ("reshape", lambda a, opset: {"allowzero": a.get("allowzero", 0), **_copied("shape")(a, opset)}),
    "Softmax": ("softmax", _softmax), "LogSoftmax": ("softmax", _softmax),
    "Concat": ("concat", lambda a, opset: {"axis": a.get("axis", 1)}),
    "Add": ("add", _binary), "Sum": ("add", NONE), "Sub": ("sub", _binary), "Mul": ("mul", _binary),
    "Div": ("div", _binary), "Pow": ("pow", NONE), "Neg": ("neg", NONE), "Sqrt": ("sqrt", NONE),
    "Erf": ("erf", NONE), "Gelu": ("gelu", _copied("approximate")),
    "Relu": ("relu", NONE), "Tanh": ("tanh", NONE), "Sigmoid": ("sigmoid", NONE),
    "LeakyRelu": ("leakyrelu", lambda a, opset: {"slope": a.get("alpha", 0.01)}),
    "Clip": ("clip", _copied("min", "max")),
    "Squeeze": ("squeeze", _copied("axes")), "Unsqueeze": ("unsqueeze", _copied("axes")),
    "Pad": ("pad", _pad), "Transpose": ("transpose", _copied("perm")),
    "Split": ("split", lambda a, opset: {"axis": a.get("axis", 0), **({"sizes": a["split"]} if "split" in a else {})}),
    "Slice": ("slice", _copied("starts", "ends", "axes")), "Gather": ("gather", _copied("axis")),
    "Identity": ("identity", NONE), "Cast": ("cast", _cast), "Constant": ("constant", _constant),
    "ConstantOfShape": ("constantofshape", lambda a, opset: {"value": a["value"].reshape(-1)[0] if "value" in a
                                                             else np.float32(0)}),
    "Shape": ("shape", lambda a, opset: {"start": a.get("start", 0), "end": a.get("end")}),
    "Equal": ("equal", NONE), "Range": ("range", NONE), "Expand": ("expand", NONE),
}


def translate(op_type: str, domain: str, attrs: Attrs, opset: int) -> tuple[str, dict]:
    """(kind, attributes) in the neutral graph. An unknown operator keeps its name, and is refused where it is needed.
    """
    if domain not in ("", "ai.onnx"):
        return f"{domain}.{op_type}", {"advice": DOMAINS.get(domain, f"the domain {domain} is not known here")}
    if op_type not in OPERATORS:
        return op_type, {"advice": ADVICE[op_type]} if op_type in ADVICE else {}
    kind, make = OPERATORS[op_type]
    return kind, make(attrs, opset)
