"""The README: its code prints the commented output, the files it names exist, and the Korean version matches."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGLISH, KOREAN = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
HEADINGS = {"What make demo prints": "make demo의 출력", "Look inside, and change it": "안을 들여다보고 바꾸기",
            "Train it on your photographs": "자기 사진으로 학습하기",
            "Read the code in this order": "코드를 읽는 순서",
            "Two GPUs, as in the paper, or several processes": "논문처럼 GPU 두 개로, 또는 여러 프로세스로",
            "How it is verified": "검증 방법", "Speed": "속도", "What is not here yet": "아직 없는 것",
            "Development": "개발"}


def code(text: str) -> str:
    """The Python examples, one after the other."""
    first, second = re.findall(r"```python\n(.*?)```", text, re.S)
    return first + second


def headings(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", re.sub(r"(?s)```.*?```", "", text), re.M)


def reading_order(text: str, heading: str) -> list[list[str]]:
    """The files that each numbered item names."""
    section = text.split(f"## {heading}\n")[1].split("\n\n")[0]
    return [re.findall(r"`([\w./]+)`", item) for item in re.split(r"^\d+\. ", section, flags=re.M)[1:]]


@pytest.mark.parametrize("name, text", [("README.md", ENGLISH), ("README.ko.md", KOREAN)], ids=["English", "Korean"])
def test_the_code_prints_its_comments(name, text):
    expected = re.findall(r"print\(.*\)\s+# ([^:\n]+)", code(text))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code(text), name, "exec"), {})
    assert len(expected) == 8
    assert printed.getvalue().splitlines() == [line.strip() for line in expected]


def test_the_reading_order_names_files_that_exist():
    files = [file for item in reading_order(ENGLISH, "Read the code in this order") for file in item]
    assert len(files) > 10
    for file in files:
        assert (ROOT / file).exists(), f"README.md names {file}, which does not exist"


def test_the_korean_readme_has_the_same_headings_code_pictures_and_reading_order():
    assert [HEADINGS[heading] for heading in headings(ENGLISH)] == headings(KOREAN)
    without_comments = [re.sub(r"\s*#.*", "", code(text)) for text in (ENGLISH, KOREAN)]
    assert without_comments[0] == without_comments[1]
    pictures = [re.findall(r"!\[.*?\]\((.*?)\)", text) for text in (ENGLISH, KOREAN)]
    assert pictures[0] == pictures[1]
    order = reading_order(ENGLISH, "Read the code in this order")
    assert len(order) == 8 and order == reading_order(KOREAN, "코드를 읽는 순서")
