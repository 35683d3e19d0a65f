"""The README's first screen: the code block runs, and prints the numbers that stand beside it."""

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_code_prints_what_it_says(name):
    code = re.search(r"```python\n(.*?)```", (README.parent / name).read_text(encoding="utf-8"), re.S).group(1)
    said = re.findall(r"print\(.*\)\s+# ([^:\n]+)", code)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), {})
    assert len(said) == 4
    assert printed.getvalue().splitlines() == [line.strip() for line in said]


def test_the_reading_order_names_files_that_exist():
    text = README.read_text(encoding="utf-8")
    order = text[text.index("## Read the code"):text.index("## Train it")]
    files = re.findall(r"`((?:minicnn|kernels|tests|examples)/[\w./]+)`", order)
    assert len(files) > 10
    for file in files:
        assert (README.parent / file).exists(), f"README.md names {file}, which does not exist"
