"""The watch over pages can fail."""

from __future__ import annotations

import re

import pytest

from tests.browser.visit import PHONE, Visit

PIXEL = ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5E"
         "rkJggg==")


@pytest.fixture
def opened(chromium, tmp_path):
    """opened(body): a page of this body."""
    visits = []

    def open_page(body: str) -> Visit:
        (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><title>page</title>{body}")
        visits.append(Visit(chromium, (tmp_path / "page.html").as_uri(), width=PHONE))
        return visits[-1]

    yield open_page
    for visit in visits:
        visit.close()


@pytest.mark.parametrize(("body", "words"), [
    ("<script>console.error('broken')</script>", "errors in the console: ['broken']"),
    ("<script>nothing.here</script>", "nothing is not defined"),
    ("<img src='https://example.invalid/a.png'>", "not on this machine: ['https://example.invalid/a.png']"),
    ("<script>fetch('http://127.0.0.1:9/a').catch(() => 0)</script>", "not on this machine"),
    ("<details><img src='data:image/png;base64,AAAA' alt=photo></details>", "pictures without a size"),
    (f"<img src='{PIXEL}' style='width: 0; height: 9px' alt=photo>", "pictures without a size"),
    ("<svg width=0 height=5></svg>", "pictures without a size")])
def test_faults_are_found(opened, body, words):
    with pytest.raises(AssertionError, match=re.escape(words)):
        opened(body).check()


def test_a_page_without_faults(opened):
    visit = opened(f"<img src='{PIXEL}' alt=pixel><details><img src='{PIXEL}' alt=hidden></details><canvas></canvas>")
    visit.check()
    assert [picture["size"] for picture in visit.pictures()] == [[1, 1], None, [300, 150]]
    assert visit.sideways() == 0
    assert opened(f"<div style='width: {PHONE + 60}px; margin: 0'>wide</div>").sideways() > 40
