"""The pages of docs/: the files that they name exist, links lead somewhere, and the how-tos' code runs."""

import re
from pathlib import Path

import pytest

from tests.helpers.small_run import small_trainer

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "README.ko.md"]
TOP = "minicnn|kernels|tests|examples|benchmarks|docs"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "moved.md"], ids=lambda page: page.name)
def test_files_and_links(page):
    text = page.read_text(encoding="utf-8")
    named = {path for path in re.findall(rf"`((?:{TOP})/[\w./]*)`", text) if "NAME" not in path}
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", re.sub(r"(?s)```.*?```|`[^`\n]+`", "", text))
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [link for link in linked if not (page.parent / link).exists()]
    assert named and not missing


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.S)


def run(found: list[str], name: str) -> dict:
    """The variables after these blocks."""
    variables = {}
    exec(compile("".join(found), name, "exec"), variables)
    return variables


@pytest.mark.parametrize("name", ["add_a_layer.md", "add_a_net.md"])
def test_code_runs(name, capsys):
    found = blocks(name)
    assert len(found) == 2 and run(found, name)["net"].num_params > 100 and capsys.readouterr().out


def test_look_inside(tmp_path, monkeypatch, capsys):
    """Shapes are as the comments say; a small run takes the place of the trained one."""
    monkeypatch.chdir(tmp_path)
    small_trainer(tmp_path / "saved", images=16).fit(1)
    found = blocks("look_inside.md")
    before, after = run(found[:5], "look_inside.md"), run(found, "look_inside.md")
    assert before["switches"].shape == (2, 12, 12, 8) and before["switches"].max() == 3
    assert list(before["gradients"]) == ["conv1", "image"]
    guided, deconvnet = before["pictures"].values()
    assert guided.shape == deconvnet.shape == (2, 28, 28, 3) and (guided != deconvnet).any()
    assert before["found"].pixels.shape == (2, 28, 28, 3) and [len(maps) for maps in before["maps"]] == [2, 2, 2]
    assert (tmp_path / "conv1.png").stat().st_size > 1000 and len(found) == 6
    assert after["net"].name == "small"
    assert "(2, 10, 10, 8)" in capsys.readouterr().out


def test_from_pytorch():
    """The same network and the same training step."""
    variables = run(blocks("from_pytorch.md"), "from_pytorch.md")
    assert variables["net"].num_params == 10 * 8 * 8 * 16 + 10 + 16 * 5 * 5 * 3 + 16
    assert variables["weights"].shape == (16, 3, 5, 5) and variables["after"] < variables["before"]


def test_import_and_export(tmp_path, monkeypatch, capsys):
    """There and back without a change."""
    monkeypatch.chdir(tmp_path)
    variables = run(blocks("import_and_export.md"), "import_and_export.md")
    net, again = variables["net"], variables["again"]
    assert again.description() == net.description() and "conv1.weight" in capsys.readouterr().out
    assert all((variables["weights"].arrays()[name] == array).all() for name, array in net.arrays().items())


def test_train_in_python(tmp_path, monkeypatch, capsys):
    """It learns, is validated with averaged weights, and draws."""
    monkeypatch.chdir(tmp_path)
    found = blocks("train_in_python.md")
    after = run(found, "train_in_python.md")
    assert len(found) == 4 and after["result"].top1 > 0.5 and after["outcome"].epochs == 4
    assert [path.name for path in after["paths"]] == ["curves.png", "conv1.png", "predictions.png"]
    assert after["saved"].meta["average"] and all(path.stat().st_size > 1000 for path in after["paths"])
    assert "with the moving average" in (said := capsys.readouterr().out) and "warning" not in said
