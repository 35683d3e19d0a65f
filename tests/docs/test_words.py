"""The project speaks in the field's standard terms: words.py lists what to write instead of what.

`python tests/docs/test_words.py [FOLDER]` lists where that is not so, of this tree or another; 1 if anywhere.
"""

import io
import re
import sys
import tokenize
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.docs.words import CODE, PROSE

ROOT = Path(__file__).parents[2]
ROOMS = "benchmarks docs examples kernels minicnn tests *.md *.py"
SKIPPED = r"minicnn/kernels/|(benchmarks|examples)/results/|tests/vectors/|tests/docs/|CHANGELOG|docs/(moved|glossary)"
QUOTES = r"""^[a-zA-Z]*('{3}|"{3}|['"])|('{3}|"{3}|['"])$"""


def files(root: Path) -> list[Path]:
    found = (path for room in ROOMS.split() for top in root.glob(room) for path in [top, *top.rglob("*.*")])
    return sorted(path for path in found if path.suffix in (".py", ".cu", ".cuh", ".md")
                  and not re.match(SKIPPED, path.relative_to(root).as_posix()))


def without_braces(words: str) -> str:
    """A string with what an f-string computes left out, from the inside outwards."""
    shorter = re.sub(r"\{[^{}]*\}", "", words)
    return words if shorter == words else without_braces(shorter)


def prose(text: str, suffix: str) -> str:
    """The text with code and `backticks` left out, on the lines where it was."""
    lines = [""] * (text.count("\n") + 2)

    def keep(words: str, line: int) -> None:
        for offset, part in enumerate(words.split("\n")):
            lines[line + offset] += " " + part.strip("#/ ")

    if suffix == ".md":
        return re.sub(r"`[^`\n]+`", "`", text)
    if suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = tokenize.tok_name[token.type]
            if kind == "COMMENT" or (kind in ("STRING", "FSTRING_MIDDLE") and " " in token.string):
                keep(without_braces(re.sub(QUOTES, "", token.string)), token.start[0] - 1)
    else:
        for comment in re.finditer(r"//[^\n]*|/\*.*?\*/", text, re.S):
            keep(comment.group(), text.count("\n", 0, comment.start()))
    return re.sub(r"`[^`\n]+`", "`", "\n".join(lines))


def find(rule, text: str) -> list[tuple[int, str]]:
    """(line number, words) of each place where the rule's pattern is found outside of the contexts that are fine."""
    fine, pattern = (rf"\b({part})(?!\w)".replace(r"\b(\[", r"(\[").replace(" ", r"\s+")
                     for part in (rule.fine or "(?!)", rule.pattern))
    flags = re.I if rule in PROSE else 0
    text = re.sub(fine, lambda match: re.sub(r"[^\n]", "_", match.group()), text, flags=re.I)
    return [(text.count("\n", 0, match.start()) + 1, " ".join(match.group().split()))
            for match in re.finditer(pattern, text, flags)]


def violations(root: Path = ROOT) -> list[str]:
    listed = {}
    for path in files(root):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        for rules, searched in (PROSE, prose(text, path.suffix)), (CODE, text):
            for rule in (rule for rule in rules if not re.search(rule.files, name)):
                for line, words in find(rule, searched):
                    listed.setdefault((name, line, words), f"{name}:{line}: {words!r}, write: {rule.instead}")
    return [listed[place] for place in sorted(listed)]


def test_the_words_are_the_fields():
    assert violations() == []


@pytest.mark.parametrize("rule", PROSE + CODE, ids=lambda rule: rule.bad)
def test_a_pattern_finds_what_it_should_and_no_more(rule):
    assert find(rule, rule.bad) and not find(rule, rule.good)


if __name__ == "__main__":
    found = violations(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT)
    print(*found, f"{len(found)} in all", sep="\n")
    sys.exit(bool(found))
