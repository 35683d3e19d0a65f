"""ONNX files against onnxruntime: the cases in which converters go wrong."""

import numpy as np
import pytest

from minicnn import interop
from minicnn.errors import CheckpointError

pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from tests.helpers.onnx_models import (  # noqa: E402
    bfloat16,
    equal,
    from_array,
    kinds,
    model,
    node,
    ours,
    save,
    theirs,
    weights,
)

F = ("N", 3, 7, 9)
CONV = {"w": weights(1, 4, 3, 3, 3), "b": weights(2, 4)}


def conv(x="x", y="c", **attrs):
    return node("Conv", [x, "w", "b"], [y], **{"pads": [1, 1, 1, 1], **attrs})


def test_convolution_with_groups_and_four_pads(tmp_path):
    made = model([node("Conv", ["x", "w", "b"], ["y"], group=2, pads=[1, 0, 2, 1], strides=[2, 1])], ("N", 4, 7, 9),
                 {"w": weights(1, 6, 2, 4, 3), "b": weights(2, 6)})
    assert equal(made, tmp_path / "m", shape=(4, 7, 9))["y"].padding == (1, 0, 2, 1)


def classifier(flatten: list, batch="N", **more):
    """Conv -> Relu -> MaxPool -> 3 x 5 maps of 4 channels -> flattened somehow -> Gemm."""
    nodes = [conv(), node("Relu", ["c"], ["r"]),
             node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), *flatten]
    return model(nodes, (batch, 3, 6, 9), {**CONV, "f": weights(3, 7, 60), "g": weights(4, 7), **more})


FC = node("Gemm", ["flat", "f", "g"], ["y"], transB=1)
INT = lambda *values: np.array(values, np.int64)                                # noqa: E731
FLATTENED = {
    "Flatten": ([node("Flatten", ["p"], ["flat"]), FC], {}, "N"),
    "Reshape 0 -1": ([node("Reshape", ["p", "s"], ["flat"]), FC], {"s": INT(0, -1)}, "N"),
    "Reshape -1 60": ([node("Reshape", ["p", "s"], ["flat"]), FC], {"s": INT(-1, 60)}, "N"),
    "Reshape 1 60": ([node("Reshape", ["p", "s"], ["flat"], allowzero=1), FC], {"s": INT(1, 60)}, 1),
    "view": ([node("Shape", ["p"], ["shape"]), node("Gather", ["shape", "zero"], ["n"]),
              node("Unsqueeze", ["n", "axes"], ["n1"]), node("Concat", ["n1", "minus"], ["target"], axis=0),
              node("Reshape", ["p", "target"], ["flat"]), FC],
             {"zero": np.int64(0), "axes": INT(0), "minus": INT(-1)}, "N"),
    "MatMul": ([node("Flatten", ["p"], ["flat"]), node("MatMul", ["flat", "m"], ["z"]), node("Add", ["z", "g"], ["y"])],
               {"m": weights(3, 60, 7)}, "N"),
}


@pytest.mark.parametrize("how", FLATTENED)
def test_rows_of_flattened_maps(tmp_path, how):
    nodes, constants, batch = FLATTENED[how]
    made = classifier(nodes, batch, **constants)
    net = equal(made, tmp_path / "m", 1 if batch == 1 else 3, shape=(3, 6, 9))
    assert kinds(net) == ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]
    x = np.random.default_rng(0).standard_normal((3, 3, 6, 9)).astype(np.float32)
    right, name = ours(net, x), next(name for name in net.params if net.params[name].data.shape == (60, 7))
    net.params[name].data[...] = weights(3, 7, 60).T if how != "MatMul" else weights(3, 60, 7)
    assert np.abs(ours(net, x) - right).max() > 1e-2        # as it would be without the permutation


def test_two_flattened_maps_joined(tmp_path):
    nodes = [conv(), node("MaxPool", ["x"], ["p"], kernel_shape=[3, 4], strides=[2, 5]), node("Flatten", ["c"], ["a"]),
             node("Flatten", ["p"], ["b2"]), node("Concat", ["a", "b2"], ["flat"], axis=1), FC]
    made = model(nodes, F, {**CONV, "f": weights(3, 7, 4 * 63 + 3 * 6), "g": weights(4, 7)})
    equal(made, tmp_path / "m", shape=F[1:])


def test_batchnorm_of_flattened_maps(tmp_path):
    names = ["s", "t", "m", "v"]
    stats = {name: np.abs(weights(k, 60)) + 0.5 for k, name in enumerate(names)}
    made = classifier([node("Flatten", ["p"], ["a"]), node("BatchNormalization", ["a", *names], ["flat"]), FC], **stats)
    assert "BatchNorm2d" in kinds(equal(made, tmp_path / "m", shape=(3, 6, 9)))


def test_channels_last_input_without_transposes(tmp_path):
    """As tf2onnx writes: Transpose in front, and back before the mean over axes 1 and 2."""
    nodes = [node("Sub", ["x", "mean"], ["x1"]), node("Transpose", ["x1"], ["t"], perm=[0, 3, 1, 2]), conv("t"),
             node("Transpose", ["c"], ["back"], perm=[0, 2, 3, 1]),
             node("ReduceMean", ["back"], ["y"], axes=[1, 2], keepdims=0)]
    made = model(nodes, ("N", 7, 9, 3), {**CONV, "mean": weights(5, 3)})
    x = weights(0, 2, 7, 9, 3)
    net = interop.read(save(made, tmp_path / "m"), device="reference")
    assert np.abs(net(x) - theirs(made, x)).max() < 1e-5 and net.input_shape == (7, 9, 3)
    assert kinds(net) == ["Affine", "Conv2d", "GlobalAvgPool2d"]


def test_lrn_and_its_even_window(tmp_path):
    made = model([node("LRN", ["x"], ["y"], size=5, alpha=0.3, bias=2.0)], ("N", 9, 3, 4))
    assert equal(made, tmp_path / "m", shape=(9, 3, 4))["y"].divide_alpha
    refused(model([node("LRN", ["x"], ["y"], size=4)], ("N", 9, 3, 4)), tmp_path, r"LRN 'y'.*without a centre.*9x3x4")


def disguised(numerator="r", axis=1, pads=(0, 0, 2, 0, 0, 0, 0, 2, 0, 0), kernel=(5, 1, 1)):
    """PyTorch's LocalResponseNorm, as its exporter writes it."""
    nodes = [node("Relu", ["x"], ["r"]), node("Mul", ["r", "r"], ["sq"]), node("Unsqueeze", ["sq", "one"], ["u"]),
             node("Pad", ["u", "pads"], ["pad"]),
             node("AveragePool", ["pad"], ["mean"], kernel_shape=list(kernel), strides=[1, 1, 1]),
             node("Squeeze", ["mean", "one"], ["sz"]), node("Mul", ["sz", "alpha"], ["m"]),
             node("Add", ["m", "k"], ["s"]), node("Pow", ["s", "beta"], ["p"]), node("Div", [numerator, "p"], ["y"])]
    constants = {"one": INT(1), "pads": np.array(pads, np.int64), "alpha": np.float32(0.3), "k": np.float32(2),
                 "beta": np.float32(0.75)}
    return model(nodes, ("N", 9, 3, 4), constants)


def test_torchs_disguise_of_lrn(tmp_path):
    net = equal(disguised(), tmp_path / "m", shape=(9, 3, 4))
    lrn = next(one.layer for one in net.nodes if one.layer.kind() == "LRN")
    assert kinds(net) == ["ReLU", "LRN"] and (lrn.n, lrn.k, lrn.beta) == (5, 2.0, 0.75) and abs(lrn.alpha - 0.3) < 1e-7


NEAR_MISSES = {"another numerator": {"numerator": "x"}, "padded on one side": {"pads": (0, 0, 4, 0, 0, 0, 0, 0, 0, 0)},
               "over two axes": {"kernel": (5, 2, 1), "pads": (0, 0, 2, 1, 0, 0, 0, 2, 0, 0)}}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_what_only_looks_like_lrn_is_refused(tmp_path, case):
    refused(disguised(**NEAR_MISSES[case]), tmp_path, "x \\* x|mean of squares")


def gelu(root=2**0.5, one=1.0, half=0.5, of="r", first=False):
    """PyTorch's GELU, as its exporter writes it.   first: x alone is halved, and not the product."""
    nodes = [node("Relu", ["x"], ["r"]), node("Div", ["r", "root"], ["d"]), node("Erf", ["d"], ["e"]),
             node("Add", ["e", "one"], ["s"])]
    nodes += ([node("Mul", [of, "half"], ["h"]), node("Mul", ["h", "s"], ["y"])] if first else
              [node("Mul", [of, "s"], ["p"]), node("Mul", ["p", "half"], ["y"])])
    return model(nodes, F, {name: np.float32(value) for name, value in (("root", root), ("one", one), ("half", half))})


@pytest.mark.parametrize("first", [False, True])
def test_gelu_by_its_formula(tmp_path, first):
    assert kinds(equal(gelu(first=first), tmp_path / "m", shape=F[1:])) == ["ReLU", "GELU"]
    for wrong in ({"root": 2.0}, {"one": 1.5}, {"half": 0.25}, {"of": "x"}):
        refused(gelu(first=first, **wrong), tmp_path, "Erf 'e'.*does not have")


def test_gelu_as_one_operator(tmp_path):
    assert kinds(equal(model([node("Gelu", ["x"], ["y"])], F, opset=20), tmp_path / "m", shape=F[1:])) == ["GELU"]
    refused(model([node("Gelu", ["x"], ["y"], approximate="tanh")], F, opset=20), tmp_path, "approximated by tanh")


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1]])
def test_average_pooling_at_the_edge(tmp_path, ceil, count, pads):
    made = model([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=ceil,
                       count_include_pad=count)], ("N", 2, 4, 6))
    equal(made, tmp_path / "m", shape=(2, 4, 6))


def test_the_table_of_the_ceil_edge(tmp_path):
    """x = 1..16 as 4 x 4, window 3, stride 2, padding 1."""
    made = model([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
                       count_include_pad=1)], ("N", 1, 4, 4))
    net = interop.read(save(made, tmp_path / "m"), device="reference")
    y = net(np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1)).reshape(-1)
    assert np.abs(y - [1.5556, 3.3333, 2, 6.3333, 11, 6, 4.5, 7.5, 4]).max() < 1e-4


@pytest.mark.parametrize("kind", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("side, kernel", [(4, 3), (5, 3), (4, 2), (5, 2)])
def test_same_padding_is_asymmetric(tmp_path, kind, side, kernel):
    made = model([node("MaxPool", ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[2, 2], auto_pad=kind)],
                 ("N", 2, side, side + 1))
    equal(made, tmp_path / "m", shape=(2, side, side + 1))
    assert interop.read(save(model([node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[2, 2], auto_pad=kind)],
                                   F), tmp_path / "n"), device="reference")["y"].padding == (0, 0, 0, 0)


@pytest.mark.parametrize("opset, axis", [(11, 1), (13, -1)])
def test_softmax_at_the_end_is_left_out(tmp_path, opset, axis):
    nodes = [node("Gemm", ["x", "f"], ["z"], transB=1), node("Softmax", ["z"], ["y"], axis=axis)]
    made = model(nodes, ("N", 5), {"f": weights(1, 4, 5)}, opset=opset)
    net = interop.read(save(made, tmp_path / "m"), device="reference")
    x = weights(0, 3, 5)
    assert np.allclose(net(x), x @ weights(1, 4, 5).T, atol=1e-5) and net.source.dropped[0].startswith("Softmax 'y'")
    inside = [node("Softmax", ["x"], ["z"], axis=axis), node("Gemm", ["z", "f"], ["y"], transB=1)]
    refused(model(inside, ("N", 5), {"f": weights(1, 4, 5)}, opset=opset), tmp_path, "Softmax 'z'.*not at the end")


@pytest.mark.parametrize("opset", [7, 13])
def test_dropout_as_attribute_and_as_input(tmp_path, opset):
    given = {"ratio": 0.3} if opset == 7 else {}
    nodes = [node("Dropout", ["x", "ratio"][:1 + (opset == 13)], ["y"], **given)]
    net = equal(model(nodes, F, {"ratio": np.float32(0.3)} if opset == 13 else {}, opset=opset), tmp_path / "m",
                shape=F[1:])
    assert abs(net["y"].rate - 0.3) < 1e-6 and net["y"].inverted


@pytest.mark.parametrize("opset", [9, 13])
def test_clip_as_attributes_and_as_inputs(tmp_path, opset):
    given = {"min": 0.0, "max": 6.0} if opset == 9 else {}
    made = model([node("Clip", ["x", "lo", "hi"][:1 + 2 * (opset == 13)], ["y"], **given)], F,
                 {"lo": np.float32(0), "hi": np.float32(6)} if opset == 13 else {}, opset=opset)
    assert equal(made, tmp_path / "m", shape=F[1:], scale=9)["y"].ceiling == 6
    refused(model([node("Clip", ["x"], ["y"], min=-1.0, max=1.0)], F, opset=9), tmp_path, r"clips to \[-1, 1\]")


STATS = {name: np.abs(weights(k, 3)) + 0.5 for k, name in enumerate("stmv")}


def test_batchnorm_and_its_scale(tmp_path):
    nodes = [node("BatchNormalization", ["x", *"stmv"], ["n"], epsilon=0.01), node("Mul", ["n", "gamma"], ["g"]),
             node("Add", ["g", "beta"], ["y"])]
    net = equal(model(nodes, F, {**STATS, "gamma": weights(7, 3, 1, 1), "beta": weights(8, 3, 1, 1)}), tmp_path / "m",
                shape=F[1:])
    assert kinds(net) == ["BatchNorm2d"]
    refused(model([node("BatchNormalization", ["x", *"stmv"], ["y"], spatial=0)], F, STATS, opset=7), tmp_path,
            "statistics for every pixel")
    train = model([node("BatchNormalization", ["x", *"stmv"], ["y", "m2", "v2"], training_mode=1)], F, STATS, opset=15,
                  output=["y", "m2", "v2"])
    net = interop.read(save(train, tmp_path / "t"), device="reference")
    assert any("training mode" in note for note in net.source.notes) and np.array_equal(net.state["y.mean"], STATS["m"])


def test_halves_of_the_channels_become_groups(tmp_path):
    nodes = [node("Split", ["x"], ["a", "b2"], axis=1), node("Conv", ["a", "w"], ["c1"], pads=[1, 1, 1, 1]),
             node("Conv", ["b2", "v"], ["c2"], pads=[1, 1, 1, 1]), node("Relu", ["c1"], ["r1"]),
             node("Relu", ["c2"], ["r2"]), node("LRN", ["r1"], ["l1"], size=3), node("LRN", ["r2"], ["l2"], size=3),
             node("Concat", ["l1", "l2"], ["y"], axis=1)]
    constants = {"w": weights(1, 4, 2, 3, 3), "v": weights(2, 4, 2, 3, 3)}
    net = equal(model(nodes, ("N", 4, 5, 6), constants), tmp_path / "m", shape=(4, 5, 6))
    assert kinds(net) == ["Conv2d", "ReLU", "LRN"]
    assert [one.layer.groups for one in net.nodes if one.layer.kind() in ("Conv2d", "LRN")] == [2, 2]
    nodes[-1] = node("Concat", ["l2", "l1"], ["y"], axis=1)
    refused(model(nodes, ("N", 4, 5, 6), constants), tmp_path, "not treated alike, or not all in order")


def test_the_input_transform_of_googlenet(tmp_path):
    nodes = []
    for k in range(3):
        nodes += [node("Gather", ["x", f"i{k}"], [f"g{k}"], axis=1), node("Unsqueeze", [f"g{k}", "one"], [f"u{k}"]),
                  node("Mul", [f"u{k}", f"s{k}"], [f"m{k}"]), node("Add", [f"m{k}", f"t{k}"], [f"a{k}"])]
    constants = {"one": INT(1)} | {f"i{k}": np.int64(k) for k in range(3)} | {
        f"{name}{k}": np.float32(value) for k in range(3) for name, value in (("s", 0.4 + k), ("t", -0.1 * k))}
    nodes += [node("Concat", ["a0", "a1", "a2"], ["cc"], axis=1), conv("cc", "y")]
    made = model(nodes, F, {**constants, **CONV})
    assert kinds(equal(made, tmp_path / "m", shape=F[1:])) == ["Affine", "Conv2d"]


def test_old_files_and_shared_weights(tmp_path):
    """IR 3 with the weights as inputs; a bias that is the Identity of another; weights as Constant nodes."""
    made = model([conv(y="y")], F, CONV, opset=8, ir=3, inputs_too=True)
    assert equal(made, tmp_path / "m", shape=F[1:]).source.unmatched == []
    shared = [node("Identity", ["b"], ["b1"]), conv(), node("Conv", ["c", "v", "b1"], ["y"])]
    equal(model(shared, F, {**CONV, "v": weights(6, 4, 4, 2, 3)}), tmp_path / "s", shape=F[1:])
    nodes = [node("Constant", [], [name], value=from_array(array)) for name, array in CONV.items()]
    equal(model([*nodes, conv(y="y")], F), tmp_path / "c", shape=F[1:])


def test_padding_of_its_own(tmp_path):
    """Into a convolution; into pooling, where zeros count; into a maximum only behind a ReLU."""
    pad = node("Pad", ["r", "p"], ["z"])
    relu, constants = node("Relu", ["x"], ["r"]), {"p": INT(0, 0, 1, 0, 0, 0, 0, 2), **CONV}
    for last in (node("Conv", ["z", "w", "b"], ["y"]), node("AveragePool", ["z"], ["y"], kernel_shape=[3, 3]),
                 node("MaxPool", ["z"], ["y"], kernel_shape=[3, 3], strides=[2, 2])):
        equal(model([relu, pad, last], F, constants), tmp_path / "m", shape=F[1:])
    pool = node("MaxPool", ["z"], ["y"], kernel_shape=[3, 3])
    refused(model([node("Pad", ["x", "p"], ["z"]), pool], F, constants), tmp_path, "zeros around.*behind a ReLU")


def refused(made, folder, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        interop.read(save(made, folder / "refused.onnx"), device="reference")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def in_domain(domain: str, op: str):
    made = model([node(op, ["x"], ["y"], domain=domain)], F)
    made.opset_import.add(domain=domain, version=1)
    return made


REFUSED = {
    "quantised": (lambda: model([node("QLinearConv", ["x", *"abcdefg"], ["y"])], F, {k: CONV["w"] for k in "abcdefg"}),
                  "QLinearConv 'y'.*quantised"),
    "fused": (lambda: in_domain("com.microsoft", "FusedConv"), "FusedConv 'y'.*before that"),
    "other domain": (lambda: in_domain("my.ops", "Thing"), "my.ops"),
    "loop": (lambda: model([node("Loop", ["", "", "x"], ["y"])], F), "Loop 'y'.*loops"),
    "transposed": (lambda: model([node("ConvTranspose", ["x", "w"], ["y"])], F, CONV), "ConvTranspose 'y'.*enlarge"),
    "unknown": (lambda: model([node("Einsum", ["x"], ["y"])], F), "Einsum 'y'.*does not have"),
    "dilated": (lambda: model([conv(y="y", dilations=[2, 2])], F, CONV), "dilated"),
    "a gate": (lambda: model([conv(), node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["y"])], F, CONV),
               "Mul 'y'.*gates"),
    "flattened output": (lambda: model([conv(), node("Flatten", ["c"], ["y"])], F, CONV), "flattened maps"),
    "other axes": (lambda: model([node("Reshape", ["x", "s"], ["y"])], F, {"s": INT(0, 9, 7, 3)}),
                   "Reshape 'y'.*9x7x3"),
    "axis 2": (lambda: model([node("Flatten", ["x"], ["y"], axis=2)], F), "joins only the axes from 2 on"),
    "axis 0": (lambda: model([node("Flatten", ["x"], ["y"], axis=0)], F), "joins the batch"),
    "of the batch": (lambda: model([node("Transpose", ["x"], ["y"])], F), "axis of the batch"),
    "over rows": (lambda: model([node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]), conv("t", "y")], F, CONV),
                  "not that of the channels"),
    "two outputs": (lambda: model([conv(), node("Relu", ["c"], ["r"])], F, CONV, output=["c", "r"]), "2 outputs"),
    "no size": (lambda: model([conv(y="y")], ("N", 3, "H", "W"), CONV), "no fixed size.*--size"),
    "another batch": (lambda: model([node("Reshape", ["x", "s"], ["y"])], F, {"s": INT(2, 189)}), "batch"),
    "along rows": (lambda: model([node("Mul", ["x", "s"], ["y"])], F, {"s": weights(1, 7, 1)}), "other axes"),
    "indices": (lambda: model([node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2]),
                               node("Cast", ["i"], ["y"], to=1)], F), "its output 'i' is read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path, case):
    make, words = REFUSED[case]
    refused(make(), tmp_path, words)


def test_an_inner_value_and_a_size_can_be_asked_for(tmp_path):
    made = model([conv(), node("Relu", ["c"], ["r"])], ("N", 3, "H", "W"), CONV, output=["c", "r"])
    net = interop.read(save(made, tmp_path / "m"), device="reference", size=8, output="c")
    assert kinds(net) == ["Conv2d"] and net.input_shape == (8, 8, 3)


def test_types_that_become_float32(tmp_path):
    for kind in (np.float16, np.float64, bfloat16):
        w = CONV["w"].astype(kind)
        made = model([node("Conv", ["x", "w"], ["y"])], F, {"w": w})
        net = interop.read(save(made, tmp_path / "m"), device="reference")
        assert np.array_equal(net.params["y.w"].data, w.astype(np.float32).transpose(2, 3, 1, 0))


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT32", "INT64", "UINT64"])
def test_tensors_in_fields_of_their_type(tmp_path, kind):
    """Not as raw bytes: float_data, double_data, int32_data and the like."""
    kind, w = getattr(TensorProto, kind), np.rint(4 * CONV["w"])
    w = abs(w) if kind == TensorProto.UINT64 else w
    made = model([node("Cast", ["v"], ["w"], to=1), node("Conv", ["x", "w"], ["y"])], F)
    made.graph.initializer.append(helper.make_tensor("v", kind, w.shape, w.reshape(-1)))
    assert not made.graph.initializer[0].raw_data
    net = interop.read(save(made, tmp_path / "m"), device="reference")
    np.testing.assert_array_equal(net.params["y.w"].data, w.transpose(2, 3, 1, 0))


@pytest.mark.parametrize("allowzero", [0, 1])
def test_a_reshape_of_constants_copies_a_size_where_it_says_0(tmp_path, allowzero):
    size = INT(4 if allowzero else 0, 3, 3, 3)
    made = model([node("Reshape", ["v", "s"], ["w"], allowzero=allowzero), conv(y="y")], F,
                 {"v": CONV["w"].reshape(4, 27), "s": size, "b": CONV["b"]})
    net = interop.read(save(made, tmp_path / "m"), device="reference")
    np.testing.assert_array_equal(net.params["y.w"].data, CONV["w"].transpose(2, 3, 1, 0))
