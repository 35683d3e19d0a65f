"""PyTorch's files of weights: exact values, names, and every attack ends in one line (written without PyTorch)."""

import json
import struct
import zipfile

import numpy as np
import pytest

from minicnn import Builder, interop
from minicnn.errors import CheckpointError, ConfigError
from minicnn.interop.formats.stored import StoredFile
from minicnn.interop.read import read_weights
from minicnn.interop.report import Report
from minicnn.interop.state_dict import export_state_dict
from minicnn.interop.torch_names import guess, torch_names
from minicnn.models import alexnet
from minicnn.system.files import write_safetensors
from tests.helpers import torch_pickle as tp

rng = np.random.default_rng(5)


def small():
    """3 x 5 maps of 4 channels before the Linear, so that no wrong order of axes can pass."""
    b = Builder((3, 5, 3), name="small")
    b.conv("conv1", 4, (3, 3), padding=1)
    b.batchnorm("bn1")
    b.relu("relu1")
    b.flatten("flat")
    b.linear("fc2", 7)
    b.loss()
    return b.net(seed=3, device="reference")


def weights() -> dict:
    """By PyTorch's names and in its layout."""
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)     # noqa: E731
    return {"features.0.weight": draw(4, 3, 3, 3), "features.0.bias": draw(4), "features.1.weight": draw(4),
            "features.1.bias": draw(4), "features.1.running_mean": draw(4), "features.1.running_var": draw(4) ** 2 + 1,
            "classifier.0.weight": draw(7, 60), "classifier.0.bias": draw(7)}


def by_loops(arrays: dict, x: np.ndarray) -> np.ndarray:
    """The logits of `small` for images (N, C, H, W), by NumPy in PyTorch's layout."""
    w, (N, _, H, W) = arrays["features.0.weight"], x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((N, 4, H, W))
    for r in range(3):
        for s in range(3):
            y += np.einsum("nchw,kc->nkhw", padded[:, :, r:r + H, s:s + W], w[:, :, r, s])
    column = lambda name: arrays[f"features.{name}"].reshape(1, -1, 1, 1)      # noqa: E731
    y = y + column("0.bias")
    y = column("1.weight") * (y - column("1.running_mean")) / np.sqrt(column("1.running_var") + 1e-5) + column("1.bias")
    return np.maximum(y, 0).reshape(N, -1) @ arrays["classifier.0.weight"].T + arrays["classifier.0.bias"]


def save_state(path, arrays: dict, **options) -> None:
    tp.save_zip(path, {name: tp.tensor(array, str(k)) for k, (name, array) in enumerate(arrays.items())}, **options)


def test_the_logits_are_those_of_the_source(tmp_path):
    """And with the rows of the Linear as they are, they would differ by much."""
    arrays = weights()
    save_state(tmp_path / "a.pth", arrays)
    net = interop.read(tmp_path / "a.pth", model=small(), device="reference")
    x = rng.standard_normal((2, 3, 3, 5)).astype(np.float32)
    expected = by_loops(arrays, x)
    ours = net(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()
    net.params["fc2.w"].data[...] = arrays["classifier.0.weight"].T
    assert np.abs(net(np.ascontiguousarray(x.transpose(0, 2, 3, 1))) - expected).max() > 1e-2


def of_every_kind() -> tuple[dict, dict]:
    """Tensors of all types and views, and the values they should have."""
    a = rng.standard_normal((3, 4)).astype(np.float32)
    base = rng.standard_normal(12).astype("<f4")
    tensors = {"f": tp.tensor(a, "0"), "half": tp.tensor(a, "1", "f2"), "double": tp.tensor(a, "2", "f8"),
               "bf": tp.tensor(a, "3", "bf"), "parameter": tp.tensor(a, "4", parameter=True),
               "transposed": tp.Tensor(base.tobytes(), "f4", (4, 3), (1, 4), "5"),
               "first": tp.Tensor(base.tobytes(), "f4", (2, 2), (2, 1), "5"),
               "second": tp.Tensor(base.tobytes(), "f4", (5,), (1,), "5", offset=7),
               "bn.num_batches_tracked": tp.tensor(np.array(3), "6", "i8")}
    half = np.float32(np.float16(a))
    brain = (a.view(np.uint32) >> 16 << 16).view(np.float32)
    return tensors, {"f": a, "half": half, "double": a, "bf": brain, "parameter": a,
                     "transposed": base.reshape(3, 4).T, "first": base[:4].reshape(2, 2), "second": base[7:]}


@pytest.mark.parametrize("save", [tp.save_zip, tp.save_legacy])
def test_every_type_and_view_is_exact(tmp_path, save):
    tensors, expected = of_every_kind()
    save(tmp_path / "a.pth", tensors)
    found = read_weights(tmp_path / "a.pth")
    assert found.tensors.keys() == expected.keys() and found.counters == 1
    for name, array in expected.items():
        read = found.tensors[name].read()
        assert read.dtype == np.float32 and np.array_equal(read, array), name


def test_wrappings_and_prefixes_are_left_out_and_said(tmp_path):
    tensors, expected = of_every_kind()
    prefixed = {f"module.{name}": one for name, one in tensors.items()}
    tp.save_zip(tmp_path / "a.ckpt", prefixed, wrap="state_dict")
    found = read_weights(tmp_path / "a.ckpt")
    assert found.tensors.keys() == expected.keys()
    assert found.notes == ["the weights are its entry 'state_dict'", "the prefix 'module.' of every name was left out"]


def test_missing_extra_and_misshapen_are_named_and_nothing_is_changed(tmp_path):
    arrays = weights()
    arrays["other.weight"] = arrays.pop("features.0.bias")
    arrays["classifier.0.weight"] = arrays["classifier.0.weight"][:, :59]
    save_state(tmp_path / "a.pth", arrays)
    with pytest.raises(CheckpointError) as caught:
        interop.read(tmp_path / "a.pth", model=small(), device="reference")
    words = str(caught.value)
    assert all(part in words for part in ("features.0.bias", "other.weight", "7x59 there and 7x60 here", "a.pth"))


def test_export_gives_back_every_bit(tmp_path):
    arrays = weights()
    save_state(tmp_path / "a.pth", arrays)
    net = interop.read(tmp_path / "a.pth", model=small(), device="reference")
    found = export_state_dict(net)
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)
    interop.write(net, tmp_path / "b.safetensors", classes=list("abcdefg"))
    again = interop.read(tmp_path / "b.safetensors", model=small(), device="reference")
    assert all(np.array_equal(net.arrays()[name], again.arrays()[name]) for name in net.arrays())


def test_bfloat16_in_safetensors(tmp_path):
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0")
    assert read_weights(tmp_path / "a.safetensors").tensors["a"].read().tolist() == [1.0, -2.0]


def test_alexnet_is_known_by_its_names(tmp_path):
    """A net of other sizes with the names of torchvision's; the shapes say which it is."""
    net = alexnet("torchvision", 5, device="reference", input_size=67, fc=8, values={})
    names = torch_names(net)
    assert list(names.values())[::2] == [f"features.{k}.weight" for k in (0, 3, 6, 8, 10)] + [
        f"classifier.{k}.weight" for k in (1, 4, 6)]
    shapes = {name: array.shape for name, array in export_state_dict(net).items()}
    assert guess(shapes) == ("alexnet:torchvision", {"num_classes": 5})
    write_safetensors(tmp_path / "a.safetensors", export_state_dict(net), {"format": "pt"}, checksums=False)
    with pytest.raises(CheckpointError, match=r"alexnet-caffe.*those of alexnet:torchvision with 5 classes"):
        interop.read(tmp_path / "a.safetensors", model=alexnet("caffe", 5, device="reference", input_size=67, fc=8))
    with pytest.raises(CheckpointError, match="classifier.1.weight is 8x256 there and"):
        interop.read(tmp_path / "a.safetensors", device="reference", size=99)
    read = interop.read(tmp_path / "a.safetensors", model=net, device="reference")
    assert np.array_equal(read.params["fc6.w"].data, net.params["fc6.w"].data)
    assert isinstance(read.source, Report) and "features.0.weight" in str(read.source)


def test_weights_of_no_known_net_need_a_name(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"x.weight": np.zeros((2, 2), np.float32)}, {}, checksums=False)
    with pytest.raises(ConfigError, match="--model"):
        interop.read(tmp_path / "a.safetensors")


# ---- attacks
def pickled(opcodes: bytes):
    return lambda path: tp.save_zip(path, {}, root=opcodes)


def with_view(**changes):
    """A tensor of 4 elements with another view."""
    def save(path):
        one = tp.tensor(np.zeros(4, np.float32), "0")
        for field, value in changes.items():
            setattr(one, field, value)
        tp.save_zip(path, {"a": one})
    return save


def two_entries(path):
    tp.save_zip(path, {"a": tp.tensor(np.zeros(4, np.float32), "0")})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/0", b"\0" * 16)


def other_local_name(path):
    tp.save_zip(path, {"a": tp.tensor(np.zeros(4, np.float32), "0")})
    path.write_bytes(path.read_bytes().replace(b"net/data/0", b"net/data/9", 1))


def two_types(path):
    tp.save_zip(path, {"a": tp.tensor(np.zeros(4, np.float32), "0"), "b": tp.tensor(np.zeros(2), "0", "f8")})


ATTACKS = {
    "GLOBAL and REDUCE": (pickled(tp.name("os", "system") + b"(" + tp.text("touch RAN") + b"tR"), "os.system"),
    "STACK_GLOBAL": (pickled(tp.text("posix") + tp.text("system") + b"\x93"), "posix.system"),
    "builtins": (pickled(tp.name("__builtin__", "eval") + b"(" + tp.text("1") + b"tR"), "__builtin__.eval"),
    "INST": (pickled(b"(ios\nsystem\n"), "opcode 0x69"),
    "EXT": (pickled(b"\x82\x01"), "opcode 0x82"),
    "OBJ": (pickled(b"(" + tp.name("subprocess", "Popen") + tp.text("ls") + b"o"), "subprocess.Popen"),
    "a pickled model": (pickled(tp.name("mylib", "Net") + b")\x81}b"), "mylib.Net.*state_dict"),
    "SETITEMS on a list": (pickled(b"](" + tp.text("a") + b"Nu"), "no dict"),
    "APPENDS to a dict": (pickled(b"}(Ne"), "no list"),
    "memo 2^31": (pickled(b"}r" + struct.pack("<I", 2**31) + b"j\0\0\0\0"), "KeyError"),
    "a text of 2 GB": (pickled(b"X\xff\xff\xff\x7fabc"), "cut short"),
    "nested tuples": (pickled(b")" + b"\x85" * 1_000_000), "more than"),
    "doubled lists": (pickled(b"]q\0" + b"".join(b"]q%c(h%ch%ce" % (k + 1, k, k) for k in range(60))), "no weights"),
    "no STOP": (lambda path: tp.save_zip(path, {}, root=b"}" * 50 + b"0" * 50 + b"0"), "cannot be read"),
    "numel too large": (with_view(storage=b"\0" * 16, size=(5,)), "beyond its storage"),
    "negative size": (with_view(size=(-4,)), "shape"),
    "huge size": (with_view(size=(2**30, 2**30), stride=(0, 0)), "elements"),
    "stride 0": (with_view(size=(2**20, 1000), stride=(0, 0)), "beyond its storage"),
    "stride beyond": (with_view(size=(2,), stride=(9,)), "beyond its storage"),
    "negative offset": (with_view(offset=-1), "stride"),
    "two types": (two_types, "two sizes|and of"),
    "two entries": (two_entries, "two entries"),
    "another local name": (other_local_name, "disagree"),
    "deflated": (lambda path: tp.save_zip(path, {"a": tp.tensor(np.zeros(9999, np.float32), "0")},
                                          method=zipfile.ZIP_DEFLATED), "compressed"),
    "TorchScript": (lambda path: tp.save_zip(path, {}, extra={"net/code/a.py": b"x"}), "TorchScript"),
    "not a dict": (pickled(b"K\1"), "no weights"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_end_in_one_line(tmp_path, attack, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save, words = ATTACKS[attack]
    save(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=words) as caught:
        interop.read("a.pth", model=small())
    assert str(caught.value).startswith("a.pth: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "RAN").exists()


def test_a_dict_cannot_be_given_attributes(tmp_path):
    """BUILD with a state on an OrderedDict has no effect, and no other name is called."""
    tensors, expected = of_every_kind()
    tp.save_zip(tmp_path / "a.pth", tensors | {"x": tp.name("mylib", "scalar") + b"(K\1tR}(" + tp.text(
        "update") + tp.name("mylib", "f") + b"ub"})
    assert read_weights(tmp_path / "a.pth").tensors.keys() == expected.keys()


def test_other_files_are_refused_by_name(tmp_path):
    for data, words in ((b"\x89HDF\r\n\x1a\n" + b"\0" * 20, "Keras"), (b"\0\0\0\0TFL3" + b"\0" * 20, "TensorFlow Lite"),
                        (b"", "empty"), (b"hello there", "kind of file")):
        (tmp_path / "f").write_bytes(data)
        with pytest.raises(CheckpointError, match=words):
            interop.read(tmp_path / "f")
    for missing in ("gone", "."):
        with pytest.raises(CheckpointError, match="no such file|is a folder"):
            interop.read(tmp_path / missing)


def test_reads_stay_in_the_file(tmp_path):
    (tmp_path / "f").write_bytes(b"12345678")
    file = StoredFile(tmp_path / "f")
    assert file.array(4, 1, "<f4", "x").size == 1
    for offset, count in ((4, 2), (-4, 1), (0, -1), (2**70, 1)):
        with pytest.raises(CheckpointError, match="cut short or damaged: x"):
            file.array(offset, count, "<f4", "x")


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_the_length_of_a_header_is_no_pickle(tmp_path, length):
    """In bytes: 0x80 and 2 to 5, as protocols of pickle begin."""
    array = np.arange(6, dtype=np.float32)
    header = json.dumps({"w": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}).encode().ljust(length)
    (tmp_path / "w").write_bytes(struct.pack("<Q", length) + header + array.tobytes())
    np.testing.assert_array_equal(read_weights(tmp_path / "w").tensors["w"].read(), array)
