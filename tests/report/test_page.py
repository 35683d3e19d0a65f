"""The report in a real browser: nothing fails, nothing is loaded, and links, keyboard and charts work."""

from __future__ import annotations

import pytest

from minicnn.report.held_out import Missing
from minicnn.report.page import LANGUAGES, Words, render
from tests.browser.visit import DESKTOP, PHONE


@pytest.fixture(scope="module")
def page_of(sections, tmp_path_factory):
    """page_of(language): the address of the report; the pictures and their texts are those of the English one."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def address(language: str) -> str:
        if language not in made:
            made[language] = folder / f"{language}.html"
            made[language].write_text(render(language, sections), encoding="utf-8")
        return made[language].as_uri()

    return address


def in_view(page, selector: str) -> bool:
    return page.evaluate("""selector => { const box = document.querySelector(selector).getBoundingClientRect();
        return box.bottom > 0 && box.top < innerHeight; }""", selector)


def test_on_a_desk(visit, page_of):
    """By keyboard to the text; over a chart; from a wrong prediction to its deconvnet, and back."""
    page = visit(page_of("en"), width=DESKTOP, dark=True, reduced_motion="reduce").page
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 25)"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'main'")

    page.locator("#chart-accuracy").scroll_into_view_if_needed()
    box = page.locator("#chart-accuracy .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#chart-accuracy .hoverlayer text")
    said = page.locator("#chart-accuracy .hoverlayer").text_content()
    assert "training" in said and "validation" in said and " %" in said
    assert page.locator("#chart-loss .scatterlayer .trace").count() == 3

    assert not in_view(page, "#deconvnet-1")
    page.click(".card.wrong a.photo")
    page.wait_for_function("document.activeElement.id === 'deconvnet-1'")          # the keyboard follows
    assert in_view(page, "#deconvnet-1")
    projection = page.locator("#deconvnet-1 img").nth(1)
    assert "Deconvnet projection of map" in projection.get_attribute("alt")
    assert projection.evaluate("img => img.complete && img.naturalWidth") >= 24
    page.click("#deconvnet-1 .more")
    page.wait_for_function("document.activeElement.id === 'photo-1'")
    assert in_view(page, "#photo-1")


@pytest.mark.parametrize("language", LANGUAGES)
def test_on_a_phone(visit, page_of, language):
    opened = visit(page_of(language), width=PHONE, height=844)
    page, words = opened.page, Words(language)
    assert opened.sideways() == 0
    assert page.evaluate("document.documentElement.lang") == language
    assert page.locator("#curves h2").inner_text() == words("curves.title")
    assert not page.locator(".contents li a").first.is_visible()                    # closed until it is opened
    page.locator(".contents summary").press("Enter")
    page.locator(".contents li a").nth(3).click()
    assert page.evaluate("location.hash") == "#predictions"
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert opened.sideways() == 0
    assert [picture for picture in opened.pictures() if picture["alt"] == ""] == []


def test_without_images_and_metrics(visit, sections, tmp_path):
    """The reason is given once."""
    gone = Missing("/data/cats does not exist")
    found = sections | dict.fromkeys(("held", "held_missing", "photographs", "confusion", "covered", "strongest"), gone)
    (tmp_path / "page.html").write_text(render("ko", found | {"curves": None}), encoding="utf-8")
    page, words = visit((tmp_path / "page.html").as_uri(), width=PHONE).page, Words("ko")
    text = page.locator("main").inner_text()
    assert text.count("/data/cats does not exist") == 1 and text.count(words("page.missing_short")) == 4
    assert words("curves.none") in text and page.locator("#predictions img").count() == 0
