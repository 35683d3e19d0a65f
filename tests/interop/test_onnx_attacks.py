"""Hostile and damaged ONNX files end in one line, and allocate, read and run nothing."""

import os

import numpy as np
import pytest

from minicnn import interop
from minicnn.errors import CheckpointError
from minicnn.interop.formats.wire import Reader, encoded, field, varints

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.helpers.onnx_models import model, node, save, weights  # noqa: E402

F = ("N", 3, 7, 9)
W = {"w": weights(1, 4, 3, 3, 3)}


def convolution():
    return model([node("Conv", ["x", "w"], ["y"])], F, W)


def with_tensor(**changes):
    """The weights, with some fields changed."""
    made = convolution()
    tensor = made.graph.initializer[0]
    for name, value in changes.items():
        if isinstance(value, list):
            del getattr(tensor, name)[:]
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return made


def outside(**entries):
    """The weights in a file beside the model."""
    made = convolution()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return made


def chain(count: int) -> bytes:
    """Identity after Identity, without the onnx package, which is slow at it."""
    nodes = b"".join(field(1, field(1, f"v{k}") + field(2, f"v{k + 1}") + field(4, "Identity")) for k in range(count))
    return field(8, field(2, 17)) + field(7, nodes)


def huge(op: str):
    shape = {"s": np.array([2**20, 2**20], np.int64)}
    big = {"ConstantOfShape": node("ConstantOfShape", ["s"], ["c"]), "Expand": node("Expand", ["one", "s"], ["c"]),
           "Range": node("Range", ["zero", "many", "one"], ["c"])}[op]
    return model([big, node("Add", ["x", "c"], ["y"])], F, {**shape, "one": np.float32(1), "zero": np.float32(0),
                                                           "many": np.float32(2**40)})


NAN = float("nan")
ATTACKS = {
    "huge dims": (lambda: with_tensor(dims=[2**40, 2**40]), "elements"),
    "negative dims": (lambda: with_tensor(dims=[-1, 4]), "shape"),
    "unknown type": (lambda: with_tensor(data_type=99), "type 99"),
    "raw and typed": (lambda: with_tensor(float_data=[1.0]), "damaged"),
    "too few bytes": (lambda: with_tensor(raw_data=b"1234"), "4 bytes"),
    "above the folder": (lambda: outside(location="../w"), "outside of the folder"),
    "absolute": (lambda: outside(location="/etc/passwd"), "outside of the folder"),
    "a folder": (lambda: outside(location="d"), "no plain file"),
    "a symbolic link": (lambda: outside(location="link"), "link"),
    "a hard link": (lambda: outside(location="hard"), "hard link"),
    "missing": (lambda: outside(location="gone.data"), "gone.data.*missing.*copy it there"),
    "no location": (lambda: outside(), "outside of the folder"),
    "a negative offset": (lambda: outside(location="w.data", offset=-4), "damaged"),
    "a great length": (lambda: outside(location="w.data", length=10**15), "needs 432 bytes"),
    "cut short": (lambda: outside(location="w.data", offset=400), "cut short"),
    "no number": (lambda: outside(location="w.data", offset="x"), "damaged"),
    "ConstantOfShape": (lambda: huge("ConstantOfShape"), "ConstantOfShape 'c'"),
    "Expand": (lambda: huge("Expand"), "Expand 'c'"),
    "Range": (lambda: huge("Range"), "Range 'c'"),
    "many small ones": (lambda: model(
        [*(node("ConstantOfShape", ["s"], [f"c{k}"]) for k in range(99)), node("Sum", ["x", *(f"c{k}" for k in range(
            99))], ["y"])], F, {"s": np.array([10**6], np.int64)}), "too many"),
    "a cycle": (lambda: model([node("Relu", ["b"], ["y"]), node("Relu", ["y"], ["b"])], F), "nothing before it"),
    "two of one name": (lambda: model([node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["y"])], F), "made already"),
    "reads nothing": (lambda: model([node("Relu", ["gone"], ["y"])], F), "'gone', which nothing"),
    "no input": (lambda: model([node("Relu", [], ["y"])], F), "0 inputs that are used"),
    "a million nodes": (lambda: chain(10**6), "fields|nodes"),
    "NaN": (lambda: model([node("LRN", ["x"], ["y"], size=3, alpha=NAN)], F), "finite"),
    "an empty name": (lambda: model([node("Conv", ["x", ""], ["y"])], F), "Conv 'y'"),
    "no groups": (lambda: model([node("Conv", ["x", "w"], ["y"], group=0)], F, W), "0 groups"),
    "a negative stride": (lambda: model([node("Conv", ["x", "w"], ["y"], strides=[-1, 1])], F, W), "at least 1"),
    "a great image": (lambda: model([node("Relu", ["x"], ["y"])], ("N", 3, 5000, 5000)), "4096"),
    "sparse weights": (lambda: sparse(), "sparse"),
    "functions": (lambda: functions(), "inline"),
    "a name of several lines": (lambda: model([node("Co\nnv", ["x", "w"], ["y"])], F, W), r"Co\\nnv"),
}


def sparse():
    made = convolution()
    made.graph.sparse_initializer.add()
    return made


def functions():
    made = convolution()
    made.functions.add(name="f", domain="d")
    return made


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_end_in_one_line(tmp_path, attack):
    make, words = ATTACKS[attack]
    (tmp_path / "d").mkdir()
    (tmp_path / "w.data").write_bytes(b"\0" * 432)
    (tmp_path / "link").symlink_to(tmp_path / "w.data")
    (tmp_path / "real").write_bytes(b"\0" * 432)
    os.link(tmp_path / "real", tmp_path / "hard")
    made = make()
    if isinstance(made, bytes):
        (tmp_path / "m.onnx").write_bytes(made)
    else:
        save(made, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=words) as caught:
        interop.read(tmp_path / "m.onnx", device="reference")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_weights_in_a_file_beside_it(tmp_path):
    """As PyTorch's exporter writes them by default, several in one file."""
    made = model([node("Conv", ["x", "w", "b"], ["y"])], F, {**W, "b": weights(2, 4)})
    onnx.save(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    net = interop.read(tmp_path / "m.onnx", device="reference")
    assert np.array_equal(net.params["y.w"].data, W["w"].transpose(2, 3, 1, 0))
    assert np.array_equal(net.params["y.b"].data, weights(2, 4))


def test_nan_weights_are_read_and_counted(tmp_path):
    w = W["w"].copy()
    w[0, 0, 0, :2] = [np.nan, np.inf]
    net = interop.read(save(model([node("Conv", ["x", "w"], ["y"])], F, {"w": w}), tmp_path / "m"), device="reference")
    assert "2 elements are not finite" in str(net.source)


# ---- the wire format
SCHEMA: dict = {1: ("number", "int"), 2: ("inner", {}), 3: ("items", ["text"]), 4: ("sizes", "ints")}
SCHEMA[2][1].update(SCHEMA)
BYTES = {"a long varint": (b"\x08" + b"\xff" * 11, "ten bytes"), "a group": (b"\x0b", "wire type 3"),
         "beyond the end": (b"\x12\x7f", "ends after"), "another wire type": (b"\x0a\x01a", "wire type 2"),
         "deep": (None, "nested more"), "many messages": (b"\x12\x00" * 500_000, "fields"),
         "many numbers": (field(4, b"\1" * 500_000), "numbers"), "no end": (b"\x08\x80", "no end")}


@pytest.mark.parametrize("case", BYTES)
def test_damaged_messages_are_refused(tmp_path, case):
    data, words = BYTES[case]
    if data is None:
        data = b""
        for _ in range(60):
            data = field(2, data)
    (tmp_path / "m").write_bytes(data)
    with open(tmp_path / "m", "rb") as file, pytest.raises(CheckpointError, match=words):
        Reader(file.fileno(), len(data)).message(SCHEMA)


def test_messages_as_the_format_has_them(tmp_path):
    """The last of repeated single fields, messages in parts, numbers packed in parts and not, unknown fields."""
    data = (field(1, 5) + field(1, -7) + field(2, field(1, 1)) + field(2, field(3, "a")) + field(3, "b") + field(3, "c")
            + field(4, b"\1\2") + field(4, 300) + field(4, encoded(3)) + field(99, b"unknown"))
    (tmp_path / "m").write_bytes(data)
    with open(tmp_path / "m", "rb") as file:
        found = Reader(file.fileno(), len(data)).message(SCHEMA)
    assert found == {"number": -7, "inner": {"number": 1, "items": ["a"]}, "items": ["b", "c"], "sizes": [1, 2, 300, 3]}
    values = [0, 1, 127, 128, 2**31, 2**64 - 1]
    assert varints(np.frombuffer(b"".join(map(encoded, values)), np.uint8)).tolist() == values
