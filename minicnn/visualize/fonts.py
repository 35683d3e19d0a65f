"""Fonts for the names of classes and folders, which may be in any script."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache

from minicnn.errors import printable

BOXES = "Last Resort"                                   # matplotlib's own: a box for every character there is
SOME = 12                                               # missing characters that the warning shows


def make_legible(figure) -> None:
    """Draw each text of the figure as it is: no formulas between dollar signs, and fonts that have its characters.

    Warns, in one line, where no installed font has them. Control characters and lone surrogates are escaped.
    """
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    for text in texts:
        text.set_parse_math(False)
        text.set_text(printable(text.get_text(), ("Cc", "Cs"), kept="\n"))
    missing = {mark for text in texts for mark in text.get_text() if mark != "\n"} - _characters(_default_font())
    if missing:
        families, lacking = _families_with(missing)
        if lacking and _add_new_fonts():
            families, lacking = _families_with(missing)
        missing = lacking
        for text in texts:
            text.set_fontfamily([*text.get_fontfamily(), *families])
    if missing:
        some = " ".join(sorted(missing)[:SOME]) + (" ..." if len(missing) > SOME else "")
        warnings.warn(f"no installed font has {some}, so names are drawn with boxes; install one, such as Noto Sans "
                      "CJK", stacklevel=2)


def _default_font() -> str:
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties())


def _characters(path: str) -> set[str]:
    """The characters of a font file; none of one that cannot be scaled or read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)                            # not get_font, which keeps the files open
        return set(map(chr, font.get_charmap())) if font.scalable else set()
    except (OSError, RuntimeError, ValueError):
        return set()


@cache
def _add_new_fonts() -> int:
    """Add the fonts that were installed since matplotlib made its list of them; returns how many."""
    from matplotlib import font_manager

    known, added = {entry.fname for entry in font_manager.fontManager.ttflist}, 0
    for path in sorted({*font_manager.findSystemFonts()} - known):
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            font_manager.fontManager.addfont(path)
            added += 1
    return added


def _families_with(missing: set[str]) -> tuple[list[str], set[str]]:
    """Families of the installed fonts that have these characters, as few as possible, and what none of them has."""
    from matplotlib import font_manager

    having = {entry.name: found for entry in font_manager.fontManager.ttflist
              if not entry.name.startswith(BOXES) and (found := missing & _characters(entry.fname))}
    families = []
    while having and (best := max(having, key=lambda name: len(having[name] & missing))) and having[best] & missing:
        families.append(best)
        missing = missing - having.pop(best)
    return families, missing
