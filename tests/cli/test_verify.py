"""minicnn verify: damaged files are named, whole ones pass, and what else there is is refused."""

import json
import shutil
from pathlib import Path

import pytest

from minicnn.cli import main as cli
from minicnn.data.prepare.run import prepare
from minicnn.system.files import read_safetensors, signed, write_json, write_safetensors
from tests.helpers.small_run import save_tree, small_net, small_trainer

OLD = Path(__file__).parents[1] / "vectors/v0_1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run, a prepared set of each encoding, and a file of weights."""
    folder = tmp_path_factory.mktemp("made")
    small_trainer(folder / "runs/a", images=24).fit(2)
    write_json(folder / "runs/a/test.json", signed({"checkpoint": "best.safetensors", "epoch": 2}, "test"))
    save_tree(folder / "tree", 6)
    for name in ("rgb", "jpeg"):
        prepare(str(folder / "tree"), str(folder / name), size=16, jpeg=name == "jpeg", per_shard=5, progress=False)
    write_json(folder / "rgb/words.json", signed({"a": "words"}, "words"))
    small_net().save(folder / "net.safetensors")
    return folder


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "made"))
    return Path(".")


def verify(capsys, *arguments) -> tuple[int, list[str]]:
    code = cli.main(["verify", *arguments])
    return code, capsys.readouterr().out.splitlines()


def test_whole_files_are_fine(copy, capsys):
    code, lines = verify(capsys, "runs/a", "rgb", "jpeg", "net.safetensors")
    assert code == 0 and all(line.startswith("fine ") for line in lines)
    for expected in ("last.safetensors: epoch 2", "metrics.jsonl: ", "runs/a/test.json", "rgb/prepared.json",
                     "rgb/all-00000.rgb: 5 images", "rgb/all-00002.rgb: 2 images", "rgb/words.json: 1 classes",
                     "jpeg/all-00001.jpegs: 5 images", "net.safetensors"):
        assert any(expected in line for line in lines), (expected, lines)
    assert verify(capsys, "a") == verify(capsys, "runs") != verify(capsys, "rgb")      # by name, and a folder of runs


def flip(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"2") if path.suffix in (".jsonl", ".json") else len(data) - 40
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("name", [
    "runs/a/last.safetensors", "runs/a/best.safetensors", "runs/a/previous.safetensors", "runs/a/metrics.jsonl",
    "runs/a/test.json", "rgb/prepared.json", "rgb/all.index", "rgb/all-00000.rgb", "rgb/all-00002.rgb",
    "rgb/words.json", "jpeg/all-00001.jpegs", "net.safetensors"])
def test_damaged_files_are_named(copy, capsys, name, damage):
    damage(Path(name))
    code, lines = verify(capsys, "runs/a", "rgb", "jpeg", "net.safetensors")
    damaged = [line for line in lines if not line.startswith("fine ")]
    assert code == 1 and len(damaged) == 1 and damaged[0].startswith("damaged ") and name in damaged[0]


@pytest.mark.parametrize("name", ["rgb/all.index", "rgb/all-00000.rgb", "jpeg/all-00001.jpegs"])
def test_missing_files_of_a_set_are_named(copy, capsys, name):
    Path(name).unlink()
    code, lines = verify(capsys, "rgb", "jpeg")
    assert code == 1 and [name in line for line in lines if not line.startswith("fine ")] == [True]


def test_files_of_an_earlier_version_are_read(capsys):
    code, lines = verify(capsys, str(OLD / "run"), str(OLD / "net.safetensors"))
    assert code == 0 and sum("can be read; it has no checksums" in line for line in lines) == 3


def test_wrong_metadata_without_checksums_are_named(copy, capsys):
    tensors, metadata = read_safetensors("runs/a/last.safetensors")
    meta = json.loads(metadata["minicnn"]) | {"epoch": "x"}
    write_safetensors("runs/a/last.safetensors", tensors, {"minicnn": json.dumps(meta)}, checksums=False)
    code, lines = verify(capsys, "runs/a/last.safetensors")
    assert code == 1 and "its metadata have epoch = 'x'" in lines[0]


@pytest.mark.parametrize(("what", "words"), [
    ("nothing", "nothing: no such run, prepared set or file"), ("tree", "tree holds neither a run nor a prepared set"),
    ("tree/x.txt", "tree/x.txt: not a file that can be checked")])
def test_what_is_not_ours_is_refused(copy, capsys, what, words):
    Path("tree/x.txt").touch()
    assert cli.main(["verify", what]) == 2 and words in capsys.readouterr().err
