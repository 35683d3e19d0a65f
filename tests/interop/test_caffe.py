"""Caffe's networks, binary and text, compared with loops of NumPy in Caffe's layout."""

import numpy as np
import pytest

from minicnn import interop
from minicnn.errors import CheckpointError
from minicnn.interop.formats.caffe import schema
from minicnn.interop.formats.caffe.files import read_mean
from minicnn.interop.formats.caffe.prototxt import parse
from tests.helpers import caffe_bytes as cb

rng = np.random.default_rng(8)
W1, B1 = rng.standard_normal((6, 3, 3, 2)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
W2 = rng.standard_normal((8, 3, 1, 1)).astype(np.float32)                       # 2 groups of 3 channels
MEAN, VAR = rng.standard_normal(6) * 999.98, rng.uniform(0.5, 2, 6) * 999.98
GAMMA, BETA = rng.standard_normal(6).astype(np.float32), rng.standard_normal(6).astype(np.float32)
W3, B3 = rng.standard_normal((5, 14 * 3 * 2)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
IMAGE = {"name": "data", "type": "Input", "top": ["data"], "input_param": {"shape": [{"dim": [1, 3, 8, 5]}]}}


def layers(first: dict = IMAGE) -> list[dict]:
    """A network with what Caffe is known for: in-place layers, ceil sizes, BatchNorm in two layers, groups."""
    relu = lambda name, value: {"name": name, "type": "ReLU", "bottom": [value], "top": [value]}     # noqa: E731
    return [
        first,
        {"name": "conv1", "type": "Convolution", "bottom": ["data"], "top": ["conv1"],
         "convolution_param": {"num_output": 6, "kernel_h": 3, "kernel_w": 2, "pad_h": 0, "pad_w": 1, "stride": [1]},
         "blobs": [cb.blob(W1, chunks=3), cb.blob(B1, legacy=True)]},
        {"name": "bn1", "type": "BatchNorm", "bottom": ["conv1"], "top": ["conv1"], "batch_norm_param": {"eps": 0.01},
         "blobs": [cb.blob(MEAN), cb.blob(VAR), cb.blob([999.98])]},
        {"name": "scale1", "type": "Scale", "bottom": ["conv1"], "top": ["conv1"], "scale_param": {"bias_term": 1},
         "blobs": [cb.blob(GAMMA, double=True), cb.blob(BETA)]},
        relu("relu1", "conv1"),
        {"name": "split", "type": "Split", "bottom": ["conv1"], "top": ["a", "b"]},
        {"name": "pool1", "type": "Pooling", "bottom": ["a"], "top": ["pool1"],
         "pooling_param": {"pool": 0, "kernel_size": 3, "stride": 2}},                      # 6 x 6 -> 3 x 3
        {"name": "pool2", "type": "Pooling", "bottom": ["b"], "top": ["pool2"],
         "pooling_param": {"pool": 1, "kernel_size": 3, "stride": 2, "pad": 1}},            # 6 -> 4, over the edge
        {"name": "pool3", "type": "Pooling", "bottom": ["pool2"], "top": ["pool3"],
         "pooling_param": {"pool": 1, "kernel_size": 2, "stride": 1}},
        {"name": "sum", "type": "Eltwise", "bottom": ["pool1", "pool3"], "top": ["sum"], "eltwise_param": {
            "operation": 1, "coeff": [1.0, -0.5]}},
        {"name": "conv2", "type": "Convolution", "bottom": ["sum"], "top": ["conv2"], "convolution_param": {
            "num_output": 8, "kernel_size": [1], "group": 2, "bias_term": 0}, "blobs": [cb.blob(W2)]},
        {"name": "cat", "type": "Concat", "bottom": ["conv2", "sum"], "top": ["cat"]},
        {"name": "norm", "type": "LRN", "bottom": ["cat"], "top": ["norm"],
         "lrn_param": {"local_size": 3, "alpha": 0.3}},
        {"name": "narrow", "type": "Pooling", "bottom": ["norm"], "top": ["narrow"], "pooling_param": {
            "kernel_h": 1, "kernel_w": 2, "stride_h": 1, "stride_w": 1}},                  # 3 x 3 -> 3 x 2
        {"name": "drop", "type": "Dropout", "bottom": ["narrow"], "top": ["narrow"],
         "dropout_param": {"dropout_ratio": 0.25}},
        {"name": "fc", "type": "InnerProduct", "bottom": ["narrow"], "top": ["fc"], "inner_product_param": {
            "num_output": 5}, "blobs": [cb.blob(W3, legacy=True), cb.blob(B3, legacy=True)]},
        {"name": "prob", "type": "Softmax", "bottom": ["fc"], "top": ["prob"]}]


def pooled(x, kernel, stride, pad, mean):
    """Caffe's pooling: sizes rounded up; what hangs over image and padding does not count."""
    N, C, H, W = x.shape
    P, Q = (-(-(n + 2 * pad - kernel) // stride) + 1 for n in (H, W))
    P, Q = (k - (pad > 0 and (k - 1) * stride >= n + pad) for k, n in ((P, H), (Q, W)))
    y = np.zeros((N, C, P, Q))
    for p in range(P):
        for q in range(Q):
            a, b = p * stride - pad, q * stride - pad
            count = (min(a + kernel, H + pad) - a) * (min(b + kernel, W + pad) - b)
            window = x[:, :, max(a, 0):a + kernel, max(b, 0):b + kernel]
            y[:, :, p, q] = window.sum((2, 3)) / count if mean else window.max((2, 3))
    return y


def by_loops(x):
    """The logits of `layers` for images (N, 3, 8, 5)."""
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))
    y = sum(np.einsum("nchw,kc->nkhw", padded[:, :, r:r + 6, s:s + 6], W1[:, :, r, s]) for r in range(3)
            for s in range(2)) + B1.reshape(-1, 1, 1)
    column = lambda a: np.reshape(a, (-1, 1, 1))                                # noqa: E731
    y = column(GAMMA) * (y - column(MEAN / 999.98)) / np.sqrt(column(VAR / 999.98) + 0.01) + column(BETA)
    y = np.maximum(y, 0)
    both = pooled(pooled(y, 3, 2, 1, True), 2, 1, 0, True)
    total = pooled(y, 3, 2, 0, False) - 0.5 * both
    halves = [np.einsum("nchw,kc->nkhw", total[:, k * 3:k * 3 + 3], W2[k * 4:k * 4 + 4, :, 0, 0]) for k in (0, 1)]
    cat = np.concatenate([*halves, total], 1)
    squares = np.pad(cat**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    cat = cat / (1 + 0.1 * (squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:])) ** 0.75
    narrow = np.maximum(cat[:, :, :, :-1], cat[:, :, :, 1:])
    return narrow.reshape(len(x), -1) @ W3.T + B3


def check(net):
    x = rng.standard_normal((2, 3, 8, 5)).astype(np.float32)
    expected = by_loops(x)
    assert np.abs(net(np.ascontiguousarray(x.transpose(0, 2, 3, 1))) - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_network_with_all_that_caffe_is_known_for(tmp_path):
    (tmp_path / "a.caffemodel").write_bytes(cb.net(layers()))
    net = interop.read(tmp_path / "a.caffemodel", device="reference")
    check(net)
    kinds = [node.layer.kind() for node in net.nodes]
    assert kinds.count("BatchNorm2d") == 1 and "Affine" in kinds and net["drop"].rate == 0.25 and net["drop"].inverted
    assert net.source.dropped == ["Softmax 'prob' (the output is the logits)"] and not net.source.unmatched
    assert any("0.00100002" in note for note in net.source.notes)


def test_a_training_network_without_its_data_layers(tmp_path):
    """As a caffemodel is: data and loss of training; what only training has is gone."""
    data = {"name": "data", "type": "Data", "top": ["data", "label"], "include": [{"phase": 0}],
            "transform_param": {"crop_size": 8, "mean_value": [1.0, 2.0, 3.0]}}
    cut = {"name": "cut", "type": "Pooling", "bottom": ["data"], "top": ["cut"], "pooling_param": {
        "kernel_h": 1, "kernel_w": 4, "stride_h": 1, "stride_w": 1}}
    only = {"name": "only", "type": "Python", "bottom": ["fc"], "top": ["fc"], "include": [{"phase": 0}]}
    chain = layers(data)[:-1]
    chain[1] = chain[1] | {"bottom": ["cut"]}
    loss = {"name": "loss", "type": "SoftmaxWithLoss", "bottom": ["fc", "label"], "top": ["loss"]}
    accuracy = {"name": "accuracy", "type": "Accuracy", "bottom": ["fc", "label"], "top": ["accuracy"]}
    (tmp_path / "a.caffemodel").write_bytes(cb.net([chain[0], cut, *chain[1:], only, loss, accuracy]))
    net = interop.read(tmp_path / "a.caffemodel", device="reference")
    assert net.input_shape == (8, 8, 3) and net.num_classes == 5 and len(net.losses) == 1
    assert net.source.preprocess.mean == (1.0, 2.0, 3.0) and net.source.preprocess.order == "bgr"


@pytest.mark.parametrize(("name", "mean"), [
    ("VGG_ILSVRC_16_layers", (103.939, 116.779, 123.68)), ("GoogleNet", (104.0, 117.0, 123.0)),     # blue, green, red
    ("AlexNet", (104.007, 116.669, 122.679)), ("CaffeNet", (104.007, 116.669, 122.679)), ("mine", None)])
def test_a_network_that_is_known_by_its_name_has_its_mean(tmp_path, name, mean):
    square = IMAGE | {"input_param": {"shape": [{"dim": [1, 3, 4, 4]}]}}
    fc = {"name": "fc", "type": "InnerProduct", "bottom": ["data"], "top": ["fc"], "blobs": [cb.blob(np.ones((2, 48)))],
          "inner_product_param": {"num_output": 2, "bias_term": 0}}
    (tmp_path / "n.caffemodel").write_bytes(cb.net([square, fc], name))
    preprocess = interop.read(tmp_path / "n.caffemodel", device="reference").source.preprocess
    assert preprocess.order == "bgr" and preprocess.std is None
    assert preprocess.mean == (mean and pytest.approx(mean, abs=5e-4))


def test_old_layers_have_the_same_weights(tmp_path):
    """Of the first format that has `layers`, with types as numbers."""
    types = {name: number for number, name in schema.V1_TYPES.items()}
    old = [layer | {"type": types[layer["type"]]} for layer in layers()[1:] if layer["type"] in types
           and layer["name"] not in ("pool2", "pool3", "sum", "split")]
    for layer in old:
        layer["bottom"] = [{"sum": "pool1", "a": "conv1", "b": "conv1"}.get(name, name) for name in layer["bottom"]]
    (tmp_path / "a.caffemodel").write_bytes(cb.message(schema.NET, name="old", layers=old, input=["data"],
                                                       input_dim=[1, 3, 8, 5]))
    net = interop.read(tmp_path / "a.caffemodel", device="reference")
    assert net.input_shape == (8, 5, 3) and np.array_equal(net.params["conv1.w"].data, W1.transpose(2, 3, 1, 0))
    assert np.array_equal(net.params["conv2.w"].data, W2.transpose(2, 3, 1, 0))


def test_text_and_binary_are_one_graph(tmp_path):
    """With comments, both kinds of brackets, lists, and enumerations by name."""
    text = cb.text({"name": "n", "layer": layers()}, schema.NET)
    text = "# deploy\n" + text.replace("pool: 1", "pool: AVE").replace("pooling_param {", "pooling_param: {", 1)
    text = text.replace("coeff: 1.0\n    coeff: -0.5", "coeff: [1, -.5f]", 1).replace('"Softmax"', "'Soft' 'max'", 1)
    assert "pool: AVE" in text and "[1, -.5f]" in text
    filler = "num_output: 6 weight_filler < type: 'x' >"
    (tmp_path / "a.prototxt").write_text(text.replace("num_output: 6", filler, 1))
    (tmp_path / "a.caffemodel").write_bytes(cb.net(layers()))
    net = interop.read(tmp_path / "a.caffemodel", graph=tmp_path / "a.prototxt", device="reference")
    check(net)
    assert net.description() == interop.read(tmp_path / "a.caffemodel", device="reference").description()
    assert "weight_filler" in str(net.source)
    for at in range(0, len(text), 97):
        (tmp_path / "a.prototxt").write_text(text[:at])
        with pytest.raises(CheckpointError):
            interop.read(tmp_path / "a.caffemodel", graph=tmp_path / "a.prototxt", device="reference")


def test_a_mean_image(tmp_path):
    image = rng.uniform(0, 255, (1, 3, 4, 5)).astype(np.float32)
    (tmp_path / "m.binaryproto").write_bytes(cb.blob(image, legacy=True))
    assert np.array_equal(read_mean(tmp_path / "m.binaryproto"), image[0, ::-1].transpose(1, 2, 0))


def changed(name: str, **changes) -> list[dict]:
    return [layer | changes if layer["name"] == name else layer for layer in layers()]


REFUSED = {
    "no weights": ([layer | {"blobs": []} for layer in layers()], "without weights"),
    "one blob too few": (changed("bn1", blobs=[cb.blob(MEAN), cb.blob(VAR)]), "BatchNorm 'bn1' has 2 arrays"),
    "five blobs": (changed("bn1", blobs=[cb.blob(MEAN)] * 5), "has 5 arrays"),
    "product": (changed("sum", eltwise_param={"operation": 0}), "Eltwise 'sum'.*expected SUM"),
    "stochastic": (changed("pool1", pooling_param={"pool": 2, "kernel_size": 3}), "stochastic"),
    "unknown": (changed("norm", type="Python"), "Python 'norm'.*does not have"),
    "transposed": (changed("norm", type="Deconvolution"), "Deconvolution 'norm'"),
    "dilated": (changed("conv1", convolution_param={"kernel_size": [3], "dilation": [2], "pad": [0, 1]}), "dilated"),
    "empty window": (changed("pool1", pooling_param={"kernel_size": 1, "stride": 4}), "outside of the image"),
    "itself": (changed("norm", bottom=["norm"]), "LRN 'norm' reads 'norm'"),
    "stride 0": (changed("conv1", convolution_param={"kernel_size": [3, 2], "stride": [0]}), "at least 1"),
    "groups": (changed("conv2", convolution_param={"kernel_size": [1], "group": 5, "bias_term": 0}), "5 groups"),
    "gradients": (changed("conv1", blobs=[cb.message(schema.BLOB, diff=W1.reshape(-1))]), "gradients and no weights"),
    "V0": ([], "first format"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused(tmp_path, case):
    chain, words = REFUSED[case]
    data = cb.net(chain) if case != "V0" else cb.message(schema.NET, layers=[{"layer": b"x", "name": "a"}])
    (tmp_path / "a.caffemodel").write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as caught:
        interop.read(tmp_path / "a.caffemodel", device="reference")
    assert "\n" not in str(caught.value)


ATTACKS = {"braces": "a { " * 100_000, "a long line": "x" * 5_000_000, "NUL": "name: \0", "no value": "layer { name: }",
           "a number too large": "input_dim: 99999999999999999999", "an escape": r'name: "\xzz"', "a list": "input: [",
           "other brackets": "layer { name: 'a' >"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_on_text_end_in_one_line(attack):
    with pytest.raises(CheckpointError):
        parse(ATTACKS[attack], schema.NET)
