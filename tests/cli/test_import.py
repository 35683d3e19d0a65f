"""minicnn import, export and diff: weights from elsewhere as a checkpoint that predicts and trains further."""

import base64
import json

import numpy as np
import pytest

from minicnn.cli import main as cli
from minicnn.data.images import load
from minicnn.data.loader import Batch
from minicnn.data.preprocess import Preprocess
from minicnn.errors import CheckpointError
from minicnn.experiment import own_net
from minicnn.experiment.imported import is_foreign, preprocess_of
from minicnn.experiment.trained import load_trained
from minicnn.interop.graphs import take_metadata
from minicnn.interop.read import read, read_weights
from minicnn.interop.report import Report
from minicnn.interop.write import write
from minicnn.models.registry import build
from minicnn.train.runs.checkpoint import load_checkpoint
from tests.helpers import torch_pickle as tp
from tests.helpers.tiny_command import tiny_command, tiny_set

rng = np.random.default_rng(4)
W, B = rng.standard_normal((4, 3, 5, 5)).astype(np.float32) / 300, rng.standard_normal(4).astype(np.float32)
W2, B2 = rng.standard_normal((2, 4 * 7 * 7)).astype(np.float32), rng.standard_normal(2).astype(np.float32)
NAMES = {"features.0.weight": W, "features.0.bias": B, "classifier.0.weight": W2, "classifier.0.bias": B2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A set of photographs, a net of one's own, and its weights as PyTorch would save them."""
    folder = tmp_path_factory.mktemp("import")
    tiny_set(folder)
    tp.save_zip(folder / "net.pth", {name: tp.tensor(array, str(k)) for k, (name, array) in enumerate(NAMES.items())})
    (folder / "names.txt").write_text("cat\ndog\n")
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = cli.main(list(map(str, arguments)))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def imported(capsys, root, *more):
    out = root / "net.safetensors"
    code, text, _ = run(capsys, "import", root / "net.pth", out, "--model", f"{root / 'own.py'}:build", *more)
    assert code == 0
    return out, text


def by_numpy(x: np.ndarray) -> np.ndarray:
    """Logits of an image (3, 32, 32), in PyTorch's layout."""
    y = np.array([[(W * x[None, :, 4 * p:4 * p + 5, 4 * q:4 * q + 5]).sum((1, 2, 3)) for q in range(7)]
                  for p in range(7)])
    return W2 @ (y.transpose(2, 0, 1) + B[:, None, None]).reshape(-1) + B2


def test_predictions_are_those_of_numpy_from_the_photograph_on(capsys, root):
    out, text = imported(capsys, root, "--mean", "10,20,30", "--labels", root / "names.txt")
    assert "classifier.0.weight" in text and "rows (4,7,7) CHW -> HWC, transposed" in text and "--mean 10,20,30" in text
    photograph = next((root / "set/test").rglob("*.png"), None) or next((root / "set/test").rglob("*.*"))
    code, text, errors = run(capsys, "predict", out, photograph)
    pixels = load(str(photograph), 37, resize="short", interpolation="bicubic")[2:34, 2:34].astype(np.float32)
    logits = by_numpy((pixels - [30, 20, 10]).transpose(2, 0, 1))
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = int(shares.argmax())
    assert code == 0 and not errors
    assert text.splitlines()[1].split() == [f"{100 * shares[best]:.1f}", "%", ("cat", "dog")[best]]


def test_an_unknown_preprocessing_is_said_every_time(capsys, root):
    out, text = imported(capsys, root)
    assert "preprocessing unknown, assumed RGB" in text
    _, _, errors = run(capsys, "predict", out, next((root / "set/test").rglob("*.*")))
    assert "preprocessing unknown, assumed RGB in 0..255 minus 0: import it again with --mean" in errors


def test_evaluate_and_fine_tune(capsys, root):
    """The weights, and the preprocessing that they expect."""
    out, _ = imported(capsys, root, "--mean", "10,20,30", "--labels", root / "names.txt")
    assert preprocess_of(out)["mean"] == [30.0, 20.0, 10.0] and not is_foreign(out) and is_foreign(root / "net.pth")
    for start in (out, root / "net.pth"):
        name = f"from-{start.suffix[1:]}"
        more = ["--init-from", str(start), "--new-head", "--freeze", "conv1", "--epochs", "1", "--run-name", name]
        code, text, errors = run(capsys, *tiny_command(root, *more))
        assert code == 0, errors
        assert "1 of 2 layers" in text and "initialised anew: fc2 (a new head)" in text
        assert "is the recipe's, for random weights" in text and "\ntime  " in text
        saved = load_checkpoint(root / "runs" / name / "last.safetensors")
        assert np.array_equal(saved.params["conv1.w"], W.transpose(2, 3, 1, 0))
        assert saved.meta["recipe"]["preprocess"]["mean"] == ([30.0, 20.0, 10.0] if start == out else "image")
    code, _, errors = run(capsys, *tiny_command(root, "--resume", str(root / "runs/from-safetensors"), "--epochs", "1"))
    assert code == 0, errors                                # the preprocessing is that of the run, from its checkpoint


@pytest.fixture
def three(root):
    """Weights of three classes, and a function that takes their number."""
    arrays = NAMES | {"classifier.0.weight": np.ones((3, 196), np.float32), "classifier.0.bias": np.ones(3, np.float32)}
    tp.save_zip(root / "three.pth", {name: tp.tensor(array, str(k)) for k, (name, array) in enumerate(arrays.items())})
    (root / "need.py").write_text((root / "own.py").read_text().replace("num_classes=2", "num_classes"))
    return root / "three.pth"


def test_the_number_of_classes_is_that_of_the_weights(capsys, root, three, tmp_path):
    for name in ("own.py", "need.py"):
        code, text, errors = run(capsys, "import", three, tmp_path / "o.safetensors", "--model", f"{root / name}:build")
        assert code == 0 and "parameters, 3 classes" in text, errors
    code, _, errors = run(capsys, "import", three, tmp_path / "o.safetensors", "--model", f"{root / 'need.py'}:build",
                          "--classes", "5")
    assert code == 2 and errors.count("\n") == 1 and "classifier.0.weight is 3x196 there and 5x196 here" in errors
    write(build("cifar_18pct", num_classes=3, device="reference"), tmp_path / "c.safetensors")
    assert read(tmp_path / "c.safetensors", model="cifar_18pct", device="reference").num_classes == 3


def test_weights_of_other_classes_get_a_new_head(capsys, root, three):
    code, text, errors = run(capsys, *tiny_command(root, "--init-from", f"{three}", "--new-head", "--epochs", "1"))
    assert code == 0 and "initialised anew: fc2 (a new head)" in text, errors


@pytest.mark.parametrize("name", ["net.onnx", "net.safetensors"])
def test_the_whole_preprocessing_travels(capsys, root, tmp_path, name):
    """Of a run that subtracts a mean image, and divides."""
    command = tiny_command(root, "--device", "reference", "--epochs", "1", "--run-name", f"run for {name}")
    assert run(capsys, *command)[0] == 0
    assert run(capsys, "export", root / "runs" / f"run for {name}", tmp_path / name)[0] == 0
    code, text, _ = run(capsys, "import", tmp_path / name, tmp_path / "again.safetensors",
                        *(["--model", f"{root / 'own.py'}:build"] if name != "net.onnx" else []))
    assert code == 0 and "minus the mean image, divided by 64 64 64" in text and "(the file's metadata)" in text
    photograph = next((root / "set/test").rglob("*.*"))
    crops = []
    for checkpoint in (root / "runs" / f"run for {name}/best.safetensors", tmp_path / "again.safetensors"):
        _, pipeline, _ = load_trained(checkpoint, "reference")
        images = pipeline.preprocess.load(str(photograph))[None]
        crops.append(pipeline.evaluation(Batch(images, *np.zeros((3, 1), np.int32))).copy())
    assert np.array_equal(*crops) and abs(crops[0]).max() < 4       # divided


@pytest.mark.parametrize("damage", [{"side": 3}, {"float32": "AAA"}, {"float32": "AADAfw=="}, {"side": "37"}, {}])
def test_a_damaged_mean_image_is_none(damage):
    """A preprocessing whose mean image is not there is unknown."""
    whole = {"side": 2, "float32": base64.b64encode(np.ones(12, "<f4")).decode()}
    preprocess = Preprocess(size=2, crop=1).to_dict()
    report, sound = Report("onnx"), Report("onnx")
    take_metadata({"preprocess": preprocess, "mean_image": whole | damage if damage else None}, report)
    take_metadata({"preprocess": preprocess, "mean_image": whole}, sound)
    assert report.preprocess is None and report.mean_image is None
    assert np.array_equal(sound.mean_image, np.ones((2, 2, 3))) and sound.preprocess.mean == "image"


def test_diff_of_networks(capsys, root, tmp_path):
    out, _ = imported(capsys, root)
    for name in ("n.onnx", "n.safetensors"):
        assert run(capsys, "export", out, tmp_path / name)[0] == 0
    for other in (tmp_path / "n.onnx", tmp_path / "n.safetensors", root / "net.pth", out):
        code, text, errors = run(capsys, "diff", tmp_path / "n.onnx", other)
        assert code == 0 and "4 tensors, all equal" in text, errors
    with pytest.raises(CheckpointError, match=r"a network \(onnx\), not weights by name; expected a state dict"):
        read_weights(tmp_path / "n.onnx")


def test_diff_of_folders(capsys, root):
    code, _, errors = run(capsys, "diff", root, root)
    assert code == 2 and "is a folder; name a checkpoint in it" in errors and errors.count("\n") == 1


def test_diff_and_export(capsys, root):
    out, _ = imported(capsys, root)
    back = root / "back.safetensors"
    assert run(capsys, "export", out, back)[0] == 0
    code, text, _ = run(capsys, "diff", back, root / "net.pth")
    assert code == 0 and "4 tensors, all equal" in text
    assert run(capsys, "diff", out, root / "net.pth")[0] == 0          # a checkpoint beside PyTorch's names
    changed = {**NAMES, "features.0.bias": B + np.float32(0.5)}
    changed.pop("classifier.0.bias")
    tp.save_zip(root / "other.pth", {name: tp.tensor(array, str(k)) for k, (name, array) in enumerate(changed.items())})
    code, text, _ = run(capsys, "diff", root / "net.pth", root / "other.pth")
    assert code == 1 and "4 tensors, 2 differ" in text
    assert "largest difference 0.5" in text and "only in net.pth" in text
    assert run(capsys, "diff", root / "net.pth", root / "gone.pth")[0] == 2


def test_neither_replaces_what_it_reads_nor_a_file_of_a_run(capsys, root, tmp_path):
    out, _ = imported(capsys, root)
    before = out.read_bytes()
    (tmp_path / "metrics.jsonl").touch()
    for command in (["export", out, out], ["export", out, tmp_path / "last.safetensors"],
                    ["import", root / "net.pth", tmp_path / "last.safetensors", "--model", f"{root / 'own.py'}:build"]):
        code, _, errors = run(capsys, *command)
        assert code == 2 and "write to another" in errors
    assert out.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_onnx_is_checked_on_both_ways(capsys, root):
    pytest.importorskip("onnxruntime")
    out, _ = imported(capsys, root, "--mean", "10,20,30", "--labels", root / "names.txt")
    code, text, _ = run(capsys, "export", out, root / "net.onnx", "--check")
    assert code == 0 and "conv1" in text and "fc2" in text
    again = root / "again.safetensors"
    code, text, _ = run(capsys, "import", root / "net.onnx", again, "--check")
    assert code == 0 and "(the file's metadata)" in text
    net, pipeline, meta = load_trained(again, "reference")
    assert meta["classes"] == ["cat", "dog"] and pipeline.preprocess.mean == (30.0, 20.0, 10.0)
    assert np.array_equal(net.params["conv1.w"].data, W.transpose(2, 3, 1, 0))


def test_expected_logits(capsys, root):
    x = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
    np.save(root / "in.npy", x)
    np.save(root / "out.npy", np.stack([by_numpy(one) for one in x]).astype(np.float32))
    _, text = imported(capsys, root, "--expect", root / "in.npy", root / "out.npy")
    assert "expected  largest difference" in text
    np.save(root / "out.npy", np.ones((2, 2), np.float32))
    code, _, _ = run(capsys, "import", root / "net.pth", root / "n.safetensors", "--model", f"{root / 'own.py'}:build",
                     "--expect", root / "in.npy", root / "out.npy")
    assert code == 1


@pytest.mark.parametrize("arguments, words", [
    (["net.pth", "out.onnx"], "OUT.safetensors"),
    (["net.pth", "o.safetensors"], "--model"),
    (["gone.pth", "o.safetensors"], "no such file"),
    (["net.pth", "o.safetensors", "--check"], "--check runs the graph of an ONNX file beside minicnn's, and net.pth"),
    (["net.pth", "o.safetensors", "--model", "alexnet:caffe"], "does not fit 'alexnet-caffe'"),
    (["net.pth", "o.safetensors", "--model", "alexnot"], "did you mean alexnet?"),
    (["net.pth", "o.safetensors", "--model", "alexnet:caffe", "--classes", "0"], "--classes 0: expected at least 1"),
])
def test_mistakes_are_one_line(capsys, root, arguments, words, monkeypatch):
    monkeypatch.chdir(root)
    code, _, errors = run(capsys, "import", *arguments)
    assert code == 2 and words in errors and errors.count("\n") == 1 and not (root / "o.safetensors").exists()


def test_labels_as_json_and_too_few(capsys, root):
    (root / "names.json").write_text(json.dumps({"0": ["n01", "cat"], "1": ["n02", "dog"]}))
    out, _ = imported(capsys, root, "--labels", root / "names.json")
    assert load_checkpoint(out).meta["classes"] == ["cat", "dog"]
    (root / "names.txt").write_text("cat\n")
    code, _, errors = run(capsys, "import", root / "net.pth", out, "--model", f"{root / 'own.py'}:build", "--labels",
                          root / "names.txt")
    (root / "names.txt").write_text("cat\ndog\n")
    assert code == 2 and "2 classes, and 1 names" in errors


def test_own_net_is_not_needed_to_predict(capsys, root, tmp_path):
    """The checkpoint describes the network."""
    out, _ = imported(capsys, root)
    assert "net" in load_checkpoint(out).meta and own_net.is_own(f"{root / 'own.py'}:build")
    net, _, _ = load_trained(out, "reference")
    assert net["conv1"].stride == (4, 4)
