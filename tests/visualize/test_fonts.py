"""Names in any script, and what else a name may hold, in pictures."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from minicnn.visualize import fonts
from minicnn.visualize.predictions import draw_predictions
from minicnn.visualize.style import new_figure, save_png

KOREAN = "고양이"


def sheet(path, name):
    """predictions.png of one photograph whose class has this name; its pixels."""
    draw_predictions(np.zeros((1, 8, 8, 3), np.uint8), np.array([0]), np.array([[0.9, 0.1]]), [name, "b"], path, name)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def korean_font(tmp_path):
    """A font that is installed for one test: solid triangles for three syllables."""
    pen = TTGlyphPen(None)
    for move, point in zip((pen.moveTo, pen.lineTo, pen.lineTo), ((0, 0), (900, 0), (450, 900)), strict=True):
        move(point)
    pen.closePath()
    glyph, names = pen.glyph(), [".notdef", *(f"uni{ord(mark):04X}" for mark in KOREAN)]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(mark): f"uni{ord(mark):04X}" for mark in KOREAN})
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=0)
    builder.setupNameTable({"familyName": "Triangles", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "triangles.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "triangles.ttf")
    yield "Triangles"
    font_manager.fontManager.ttflist[:] = before


def test_an_installed_font_that_has_the_characters_is_used(tmp_path, korean_font):
    drawn = sheet(tmp_path / "with.png", KOREAN)
    assert fonts._families_with(set(KOREAN)) == ([korean_font], set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fonts, "_families_with", lambda missing: ([], missing))
        with pytest.warns(UserWarning, match="no installed font has"):
            assert not np.array_equal(drawn, sheet(tmp_path / "without.png", KOREAN))


def test_a_font_that_was_installed_lately_is_found(tmp_path, monkeypatch, korean_font):
    """matplotlib keeps its list of fonts; the advice to install one must help all the same."""
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [entry for entry in manager.ttflist
                                             if entry.name.startswith(("DejaVu", fonts.BOXES))])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "triangles.ttf"), "/gone.ttf"])
    fonts._add_new_fonts.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sheet(tmp_path / "sheet.png", KOREAN)
    assert korean_font in {entry.name for entry in manager.ttflist}


def test_without_one_it_is_said_in_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    fonts._add_new_fonts.cache_clear()
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [entry for entry in font_manager.fontManager.ttflist
                                                              if entry.name.startswith(("DejaVu", fonts.BOXES))])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sheet(tmp_path / "sheet.png", KOREAN)
    assert [str(entry.message) for entry in said] == [
        "no installed font has 고 양 이, so names are drawn with boxes; install one, such as Noto Sans CJK"]
    assert not caplog.records
    with pytest.warns(UserWarning, match=r"has (\S ){12}\.\.\., so names"):
        sheet(tmp_path / "sheet.png", "".join(chr(0xac00 + k) for k in range(13)))


@pytest.mark.parametrize("name", [r"$\frac$", "a$b$c", "caf\udce9", "two\nlines\tand\0more", "$", ""])
def test_names_are_drawn_as_they_are(tmp_path, name):
    """No formula, no character that cannot be, no control character."""
    assert sheet(tmp_path / "sheet.png", name).size


def test_a_formula_is_drawn_as_its_source(tmp_path):
    figure = new_figure(1)
    text = figure.text(0, 0, "$x^2$ caf\udce9\t")
    save_png(figure, tmp_path / "text.png")
    assert text.get_text() == r"$x^2$ caf\udce9\t" and not text.get_parse_math()


def test_a_caption_keeps_its_lines(tmp_path):
    figure = new_figure(1)
    text = figure.text(0, 0, "two\nlines")
    save_png(figure, tmp_path / "text.png")
    assert text.get_text() == "two\nlines"


PROGRAM = """
import os, sys
from minicnn.visualize.style import new_figure, save_png
save_png(new_figure(1), sys.argv[1])
import matplotlib
wanted = os.environ["MPLBACKEND"]
print(wanted, matplotlib.rcParams._get("backend") == wanted, "matplotlib.pyplot" in sys.modules)
"""


@pytest.mark.parametrize(("backend", "taken"), [("no_such", False), ("svg", True)])
def test_a_backend_that_is_not_installed_does_not_matter(tmp_path, backend, taken):
    """One that is installed goes on being the one of pyplot."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "a.png"], capture_output=True, text=True,
                           env={**os.environ, "MPLBACKEND": backend}, check=True)
    assert ended.stdout.split() == [backend, str(taken), "False"] and (tmp_path / "a.png").exists()
