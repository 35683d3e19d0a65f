"""The page in a real browser; what its fixture checks where a test ends: tests/browser/visit.py."""

from __future__ import annotations

import re

import pytest

from tests.browser.visit import PHONE
from tests.explore.conftest import photo

DROPPED = """bytes => {
    const dropped = new DataTransfer();
    dropped.items.add(new File([new Uint8Array(bytes)], 'mine.png', {type: 'image/png'}));
    return dropped;
}"""


@pytest.fixture
def page(visit, client):
    """page(**options): the page, opened, with the first sample shown."""
    def opened(**options):
        found = visit(client.url, **options)
        settled(found.page)
        return found
    return opened


def settled(page) -> None:
    """Nothing is asked for any more, and the projection is there."""
    page.locator("#projection:not([hidden]):not(.stale)").wait_for()
    page.locator("main[aria-busy=false]").wait_for()


def text(page, selector: str) -> str:
    return page.inner_text(selector)


def test_from_a_photograph_to_its_deconvnet(page):
    visit = page()
    page = visit.page
    assert page.locator("#samples img").count() >= 7 and page.locator("#guesses li").count() == 4
    dropped = page.evaluate_handle(DROPPED, list(photo()))
    page.dispatch_event("body", "dragenter", {"dataTransfer": dropped})
    page.locator("#drop").wait_for()
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    page.locator("#photo[alt^='mine.png: the central crop of 24 × 24']").wait_for()
    settled(page)
    assert not page.is_visible("#drop")

    page.click("#net button[aria-label^='conv1, relu1, norm1']")
    page.click("#stages >> text=relu1")
    page.locator("#unit-caption", has_text="relu1, map").wait_for()
    page.click("#net button[aria-label^='pool1']")
    page.click("#maps [data-unit='3']")
    page.locator("#unit-caption", has_text="pool1, map 3 of 8").wait_for()
    page.click("#map", position={"x": 2, "y": 2})
    page.locator("#unit-caption", has_text="row 0, column 0 of 4 x 4").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.locator("#unit-caption", has_text="row 1, column 1 of 4 x 4").wait_for()
    settled(page)
    assert "Deconvnet: a ReLU passes R where R > 0; LRN passes R unchanged" in text(page, "#unit-caption")
    assert "rows 4 to 12, columns 4 to 12 of 24 x 24" in text(page, "#unit-caption")
    width = page.locator("#seen").bounding_box()["width"]
    field = page.locator("#seen + .field").bounding_box()
    assert field["width"] == pytest.approx(9 / 24 * width, abs=1)

    page.click("#peak")
    settled(page)
    before = page.get_attribute("#projection", "src")
    page.click("#rules >> text=Gradient")
    assert "Activation times gradient: a ReLU passes R where its input was positive" in text(page, "#unit-caption")
    assert page.get_attribute("#projection", "src") != before
    assert page.locator("#compared canvas").count() == 4
    assert page.get_attribute("#compared [aria-pressed=true] canvas", "aria-label").startswith("Gradient, rows ")

    page.click("#find")
    page.locator("#patches img").nth(8).wait_for()
    assert "9 of 39 images with the largest activations" in text(page, "#top-caption")
    page.click("#net button[aria-label^='fc3']")
    page.locator("#unit-caption", has_text="fc3, unit").wait_for()
    assert not page.is_visible("#map") and not page.is_visible("#top")
    assert re.match("fc3, unit [0-3], (stripes|checks|rings|dots)", text(page, "#h-unit"))
    settled(page)


def test_the_square_moves_with_the_pointer_and_by_keys(page):
    visit = page()
    page = visit.page
    page.click("#cover")
    page.locator("#cover-caption", has_text="5 × 5 pixels").wait_for()
    assert "covers rows 10 to 14, columns 10 to 14" in text(page, "#cover-caption")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.locator("#cover-caption", has_text="rows 6 to 10, columns 6 to 10").wait_for()
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(1, 20):
        page.mouse.move(box["x"] + box["width"] * (0.5 + step / 40), box["y"] + box["height"] / 2)
    page.mouse.up()
    page.locator("#cover-caption", has_text="columns 19 to 23").wait_for()
    assert "→" in text(page, "#guesses")
    page.click("#cover")
    assert "→" not in text(page, "#guesses") and not page.is_visible("#occluder")


def test_on_a_phone_in_the_dark_by_keyboard(page):
    visit = page(width=PHONE, height=844, dark=True)
    page = visit.page
    assert visit.sideways() == 0
    page.focus("#net [tabindex='0']")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.locator("#unit-caption", has_text="norm1, map").wait_for()
    page.focus("#maps [tabindex='0']")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator("#maps button").last.get_attribute("aria-pressed") == "true"
    assert page.locator("#maps button").first.get_attribute("aria-pressed") == "false"
    assert visit.sideways() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"


def test_what_is_no_image_is_reported_in_the_page(page):
    visit = page()
    page = visit.page
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image at all"})
    page.locator("#error", has_text="cannot read the image notes.txt: it does not begin as a JPEG").wait_for()
    page.click("#error button")
    assert not page.is_visible("#error") and page.is_visible("#photo")
    assert visit.errors and all("400" in error for error in visit.errors)         # Chromium notes the status
    visit.errors.clear()
