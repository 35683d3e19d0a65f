"""A page of results that several runs add themselves to."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from minicnn.errors import ConfigError
from minicnn.train.runs.results import add_to_page, known_runs


def add(path, command):
    add_to_page(path, [{"command": command, "machine": "this one"}], lambda report: report["command"],
                lambda reports: [f"{len(reports)} runs"])


def test_runs_that_end_at_once_are_all_on_it(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(tmp_path / "new/page", f"train {number:02d}"), range(40)))
    assert len(known_runs(tmp_path / "new/page")) == 40
    text = (tmp_path / "new/page.md").read_text()
    assert text.startswith("40 runs\n") and text.count("\n- `train ") == 40


def test_names_of_no_encoding(tmp_path):
    add(tmp_path / "page", "train --data caf\udce9")
    add(tmp_path / "page", "train --data 고양이")
    assert list(known_runs(tmp_path / "page")) == ["train --data caf\udce9", "train --data 고양이"]
    assert "- `train --data caf\\udce9` (this one)" in (tmp_path / "page.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["[{}]", "{", "[1]", json.dumps({"a": 1})])
def test_a_file_of_something_else(tmp_path, content):
    (tmp_path / "page.json").write_text(content)
    with pytest.raises(ConfigError, match="does not hold the runs"):
        add(tmp_path / "page", "train")
    assert (tmp_path / "page.json").read_text() == content
