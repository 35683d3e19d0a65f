"""The pages of docs/: the files that they name exist, links lead somewhere, and the how-tos' code runs."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["add_a_layer.md", "add_a_net.md"])
def test_code_runs(name, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    variables = {}
    exec(compile("".join(blocks), name, "exec"), variables)
    assert variables["net"].num_params > 100 and capsys.readouterr().out
