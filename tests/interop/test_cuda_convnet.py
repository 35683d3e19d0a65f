"""The paper's two columns in cuda-convnet's files: literal, merged, and as alexnet("authors")."""

import gzip
import io
import pickle

import numpy as np
import pytest

from minicnn import interop
from minicnn.errors import CheckpointError
from minicnn.interop.formats import cuda_convnet
from minicnn.interop.formats.columns import graph_of
from minicnn.interop.formats.numpy_pickles import read_pickle
from minicnn.interop.formats.stored import StoredFile
from minicnn.interop.graph.lower import lower
from minicnn.interop.report import Report
from minicnn.models import alexnet
from tests.helpers import convnet_145 as net145

KERNELS, FC, SIDE = (8, 12, 16, 8, 12), 12, 99             # at 99 pixels, pool3 is 2 x 2: an order that matters
FOUND = net145.sections(KERNELS, FC, 5)
SECOND = net145.params(FOUND)
ARRAYS = net145.weights(FOUND, 6 * 2 * 2, np.random.default_rng(1))
IMAGES = np.random.default_rng(2).uniform(-120, 120, (2, SIDE, SIDE, 3)).astype(np.float32)


def write(folder, as_list: bool, found=FOUND, **options):
    (folder / "layers-145.cfg").write_text(net145.cfg(found))
    (folder / "layer-params-145.cfg").write_text(net145.cfg(SECOND))
    data = net145.checkpoint(found, ARRAYS, as_list=as_list, image=SIDE, second=SECOND, **options)
    (folder / "1.5").write_bytes(data)
    return folder / "1.5"


def as_authors() -> dict:
    """The weights as arrays of alexnet("authors"), by hand."""
    turn = lambda w, size: w.reshape(-1, size, size, w.shape[1]).transpose(1, 2, 0, 3)      # noqa: E731
    both = lambda name: [ARRAYS[f"{name}{c}"] for c in "ab"]                                # noqa: E731
    found = {}
    for layer, size in ((1, 11), (2, 5), (3, 3), (4, 3), (5, 3)):
        columns = both(f"conv{layer}")
        found[f"conv{layer}.w"] = np.concatenate([turn(np.concatenate(w), size) for w, _ in columns], 3)
        found[f"conv{layer}.b"] = np.concatenate([b.reshape(-1) for _, b in columns])
    rows = lambda w: w.reshape(-1, 2, 2, w.shape[1]).transpose(1, 2, 0, 3)                  # noqa: E731
    found["fc6.w"] = np.concatenate([np.concatenate([rows(w) for w in ws], 2).reshape(48, -1) for ws, _ in
                                     both("fc2048")], 1)
    (wa, _), (wb, _) = ARRAYS["fc2048ba"], ARRAYS["fc2048bb"]
    found["fc7.w"] = np.concatenate([np.concatenate(wa), np.concatenate(wb[::-1])], 1)     # bb reads hs1b, hs1a
    found["fc8.w"] = np.concatenate(ARRAYS["fc1000"][0])
    for layer, names in ((6, ("fc2048a", "fc2048b")), (7, ("fc2048ba", "fc2048bb")), (8, ("fc1000",))):
        found[f"fc{layer}.b"] = np.concatenate([ARRAYS[name][1].reshape(-1) for name in names])
    return found


def authors():
    net = alexnet("authors", 5, device="reference", input_size=SIDE, kernels=KERNELS, fc=FC, values={})
    net.load_arrays(as_authors())
    return net(IMAGES)


def close(a, b) -> float:
    return np.abs(a - b).max() / np.abs(b).max()


def test_literal_and_merged_are_alexnet_of_the_authors(tmp_path):
    assert len(FOUND) == 35
    path, expected = write(tmp_path, True), authors()
    merged = interop.read(path, graph=tmp_path / "layers-145.cfg", device="reference")
    assert close(merged(IMAGES), expected) < 1e-5
    assert merged["conv2"].groups == 2 and merged["rnorm1"].groups == 2 and merged["conv3"].groups == 1
    written = cuda_convnet.read_cfg(tmp_path / "layers-145.cfg", tmp_path / "layer-params-145.cfg")
    cuda_convnet.take_weights(written, cuda_convnet.layers_of_checkpoint(read_pickle(StoredFile(path))))
    literal = lower(graph_of(written, SIDE, [], merge=False), Report("cfg"), device="reference")
    assert close(literal(IMAGES), expected) < 1e-5 and literal["conv2a"].groups == 1
    assert not (tmp_path / "RAN").exists()


def test_the_order_of_the_inputs_counts(tmp_path):
    found = net145.sections(KERNELS, FC, 5, crossed=("hs1a", "hs1b"))
    write(tmp_path, True, found)
    net = interop.read(tmp_path / "1.5", device="reference")
    assert close(net(IMAGES), authors()) > 0.01


@pytest.mark.parametrize("as_list, zipped", [(True, False), (False, False), (False, True)])
def test_a_checkpoint_needs_no_cfg(tmp_path, as_list, zipped):
    """Of cuda-convnet and of the 2012 release; also compressed."""
    net = interop.read(write(tmp_path, as_list, zipped=zipped), device="reference")
    assert net.input_shape == (SIDE, SIDE, 3) and net.num_classes == 5
    assert close(net(IMAGES), authors()) < 1e-5
    kinds = [node.layer.kind() for node in net.nodes]
    assert kinds.count("ReLU") == 7 and kinds.count("Dropout") == 2 and not net["hs1"].inverted


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (3, 2)])
def test_a_locally_connected_layer_is_loops(stride, padding):
    """5 x 5 pixels, 3 x 3 kernels of their own at each place; weights (places, channels, rows, columns, filters)."""
    places = -(-(5 + 2 * padding - 3) // stride) + 1        # the last one may pass the edge
    rng = np.random.default_rng(4)
    w, b = rng.standard_normal((places, places, 2, 3, 3, 4)), rng.standard_normal((4, places, places))
    settings = {"channels": 2, "filters": 4, "filtersize": 3, "stride": stride, "padding": padding, "imgsize": 5}
    layers = [cuda_convnet.Layer("data", "data", [], {"dataidx": 0}),
              cuda_convnet.Layer("local", "local", ["data"], settings, [w.reshape(-1, 4)], b.reshape(-1))]
    net = lower(graph_of(layers, 5, []), Report("cfg"), device="reference")
    x = rng.standard_normal((1, 5, 5, 2)).astype(np.float32)
    wide = np.pad(x[0], ((padding, padding + 3), (padding, padding + 3), (0, 0)))
    window = lambda p, q: wide[p * stride:p * stride + 3, q * stride:q * stride + 3]        # noqa: E731
    wanted = [[np.einsum("rsc,crsk->k", window(p, q), w[p, q]) + b[:, p, q] for q in range(places)]
              for p in range(places)]
    np.testing.assert_allclose(net(x).reshape(places, places, 4), wanted, rtol=1e-4, atol=1e-5)


def test_weights_as_a_dict_by_layer(tmp_path):
    """As bvlc_alexnet.npy: a pickled dict of name -> [weights (R, S, C/G, K), biases]."""
    net = alexnet("caffe", 3, device="reference", input_size=67, fc=8)
    arrays = {layer: [net.params[f"{layer}.{local}"].data for local in "wb"] for layer in net.layers_with_weights}
    np.save(tmp_path / "a.npy", arrays, allow_pickle=True)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, 2))
    for name in ("a.npy", "a.pkl"):
        other = alexnet("caffe", 3, device="reference", input_size=67, fc=8, seed=9)
        read = interop.read(tmp_path / name, model=other, device="reference")
        assert all(np.array_equal(read.arrays()[key], net.arrays()[key]) for key in net.arrays())
        assert read.source.preprocess.order == "bgr" and read.source.preprocess.mean == (104.007, 116.669, 122.679)
    arrays["conv1"][0] = arrays["conv1"][0][:, :, ::-1, :90]
    np.save(tmp_path / "a.npy", arrays, allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"conv1.w is \(11, 11, 3, 90\) there"):
        interop.read(tmp_path / "a.npy", model=net, device="reference")


def changed(name: str, **changes) -> dict:
    return {key: one | changes if key == name else one for key, one in FOUND.items()}


REFUSED = {
    "itself": (changed("conv2a", inputs="conv2a"), "reads 'conv2a', which reads it"),
    "nothing": (changed("conv2a", inputs="gone"), "'gone', which does not exist"),
    "kind": (changed("pool2a", type="blur"), "blur 'pool2a'.*does not have"),
    "sparse": (changed("conv2a", randSparse=1), "sparse"),
    "stride": (changed("conv1a", stride=0), "geometry"),
    "groups": (changed("conv1a", groups=5, channels=7), "weights"),
    "pool": (changed("pool1a", pool="rand"), "'rand'"),
    "neuron": (changed("conv4a", neuron="abs"), "neuron 'abs'"),
    "a number": (changed("conv1a", stride="x"), "no number"),
    "too large": (changed("conv1a", filters=2**40), "too large"),
}


def test_text_alone_has_no_weights(tmp_path):
    write(tmp_path, True)
    with pytest.raises(CheckpointError, match="read a checkpoint, with --graph"):
        interop.read(tmp_path / "layers-145.cfg")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, case):
    found, words = REFUSED[case]
    write(tmp_path, True)
    (tmp_path / "layers-145.cfg").write_text(net145.cfg(found))
    with pytest.raises(CheckpointError, match=words):
        interop.read(tmp_path / "1.5", graph=tmp_path / "layers-145.cfg", device="reference")


def test_interpolation_is_never_done(tmp_path):
    write(tmp_path, True)
    (tmp_path / "layers-145.cfg").write_text(net145.cfg(changed("conv1a", initWFunc="%(inputs)s", initB="%(gone)s")))
    interop.read(tmp_path / "1.5", graph=tmp_path / "layers-145.cfg", device="reference")


def test_damaged_arrays_are_refused(tmp_path):
    """The shape of an array is not believed, nor are compressed data that grow."""
    data = pickle.dumps({"model_state": {"layers": []}, "a": np.zeros((3, 4), np.float32)}, 2)
    path = tmp_path / "p"
    for wrong in (data.replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fK\x04\x86"), data[:-30]):
        assert wrong != data
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError):
            root = read_pickle(StoredFile(path))
            root["a"].read()
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as file:
        file.write(b"\0" * 2**26)
    path.write_bytes(bomb.getvalue())
    with pytest.raises(CheckpointError, match="compressed more"):
        interop.read(path)
