"""The project is written in the standard terms of the field: words.py lists what to write instead of what.

`python -m tests.docs.test_words [FOLDER]` lists the violations of this tree, or of another.
"""

import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

from tests.docs.words import CODE, PROSE

ROOT = Path(__file__).parents[2]
WHERE = "benchmarks docs examples kernels minicnn tests *.md *.py"
SKIPPED = r"minicnn/kernels/|(benchmarks|examples)/results/|tests/vectors/|tests/docs/|CHANGELOG|docs/(moved|glossary)"
QUOTES = r"""^[a-zA-Z]*('{3}|"{3}|['"])|('{3}|"{3}|['"])$"""

COMPUTED = r"\{([^{}]|\{[^{}]*\})*\}"                     # by an f-string


def files(root: Path) -> list[Path]:
    found = (path for where in WHERE.split() for top in root.glob(where) for path in [top, *top.rglob("*.*")])
    return sorted(path for path in found if path.suffix in (".py", ".cu", ".cuh", ".md")
                  and not re.match(SKIPPED, path.relative_to(root).as_posix()))


def pieces(text: str, suffix: str):
    """(line, words) of each comment, docstring and message; of Markdown, the whole."""
    if suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = tokenize.tok_name[token.type]
            if kind == "COMMENT" or (kind in ("STRING", "FSTRING_MIDDLE") and " " in token.string):
                yield token.start[0] - 1, re.sub(COMPUTED, "", re.sub(QUOTES, "", token.string))
    else:
        for comment in re.finditer(r".+" if suffix == ".md" else r"//[^\n]*|/\*.*?\*/", text, re.S):
            yield text.count("\n", 0, comment.start()), comment.group()


def prose(text: str, suffix: str) -> str:
    """The text without code and `backticks`, each word on the line where it was."""
    lines = [""] * (text.count("\n") + 1)
    for first, words in pieces(text, suffix):
        for line, part in enumerate(words.split("\n"), first):
            lines[line] += " " + part.strip("#/ ")
    return re.sub(r"`[^`\n]+`", "`", "\n".join(lines))


def find(rule, text: str) -> list[tuple[int, str]]:
    """(line, words) of each place where the pattern is found outside of the contexts that are fine."""
    fine, pattern = (rf"(?<!\w)({part})(?!\w)".replace(" ", r"\s+") for part in (rule.fine or "(?!)", rule.pattern))
    text = re.sub(fine, lambda match: re.sub(r"[^\n]", "_", match.group()), text, flags=re.I)
    return [(text.count("\n", 0, match.start()) + 1, " ".join(match.group().split()))
            for match in re.finditer(pattern, text, re.I if rule in PROSE else 0)]


def violations(root: Path = ROOT) -> list[str]:
    listed = {}
    for path in files(root):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        for rules, searched in (PROSE, prose(text, path.suffix)), (CODE, text):
            for rule in rules:
                for line, words in [] if re.search(rule.files, name) else find(rule, searched):
                    listed.setdefault((name, line, words), f"{name}:{line}: {words!r}, write: {rule.instead}")
    return [listed[place] for place in sorted(listed)]


def test_the_words_are_those_of_the_field():
    assert violations() == []


@pytest.mark.parametrize("rule", PROSE + CODE, ids=lambda rule: rule.bad)
def test_a_pattern_finds_what_it_should_and_no_more(rule):
    assert find(rule, rule.bad) and not find(rule, rule.good)


if __name__ == "__main__":
    if found := violations(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT):
        sys.exit("\n".join([*found, f"{len(found)} violations"]))
