"""Pages in a real Chromium without a window, driven by Playwright: what a test opens is watched until it ends.

    def test_a_page(visit, tmp_path):
        opened = visit((tmp_path / "page.html").as_uri(), width=PHONE)
        opened.page.click("text=Next")                          # opened.page is Playwright's Page
        assert not opened.sideways()

Where the test ends, `check` fails on an error in the console, a request that left the machine, or a picture without a
size. The browser is the system's (Debian: apt-get install chromium); nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = 1280, 390                      # widths in CSS pixels
WITHIN = ("file", "data", "blob", "about")      # schemes that read nothing from a network
PICTURES = """async () => {
    const size = picture => { const box = picture.getBoundingClientRect(); return [box.width, box.height]; };
    const found = [];
    for (const picture of document.images) {
        picture.loading = 'eager';
        await picture.decode().catch(() => null);
        found.push({name: picture.alt || picture.src.slice(0, 80), alt: picture.getAttribute('alt'),
                    pixels: [picture.naturalWidth, picture.naturalHeight],
                    size: picture.checkVisibility() ? size(picture) : null});
    }
    for (const drawing of document.querySelectorAll('svg, canvas'))
        if (drawing.checkVisibility())
            found.push({name: drawing.outerHTML.slice(0, 80), alt: drawing.getAttribute('aria-label'),
                        pixels: size(drawing), size: size(drawing)});
    return found;
}"""


@cache
def chromium() -> str | None:
    """The path of a browser that starts; a distribution may have the name and only a hint behind it."""
    for path in filter(None, map(shutil.which, NAMES)):
        if subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0:
            return path
    return None


def why_not() -> str | None:
    """Why no page can be opened here, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    return None if chromium() else "Chromium is not installed: apt-get install chromium"


@contextmanager
def browser() -> Iterator:
    """The running browser (playwright.sync_api.Browser). As root it has no sandbox, which it would refuse to be."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page that is open, what its console reported as errors, and every address that it asked for."""

    def __init__(self, browser, url: str, width: int = DESKTOP, height: int = 900, dark: bool = False, **options):
        """options: of Playwright's Browser.new_context, such as locale or has_touch."""
        self.url, self.errors, self.requests = url, [], []
        self.context = browser.new_context(viewport={"width": width, "height": height},
                                           color_scheme="dark" if dark else "light", **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.context.route("**/*", self._answer)
        self.page.goto(url)

    def _answer(self, route) -> None:
        route.abort() if self._outside(route.request.url) else route.fallback()

    def _outside(self, url: str) -> bool:
        """Whether this address is neither part of the page nor of the server that it came from."""
        asked = urlsplit(url)
        return asked.scheme not in WITHIN and asked.netloc != urlsplit(self.url).netloc

    def outside(self) -> list[str]:
        """The requests that tried to leave the machine; they were stopped."""
        return [url for url in self.requests if self._outside(url)]

    def pictures(self) -> list[dict]:
        """Of every <img>, also hidden ones, and every visible <svg> and <canvas>: name, alt, pixels (its own width and
        height), size (as shown; None where it is hidden)."""
        return self.page.evaluate(PICTURES)

    def sideways(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def check(self) -> None:
        """A test that provokes errors looks at `errors` and clears the list."""
        pictures = self.pictures()                      # first, since until it is answered events arrive
        assert not self.outside(), f"asked for what is not on this machine: {self.outside()}"
        assert not self.errors, f"errors in the console: {self.errors}"
        unsized = [picture for picture in pictures if 0 in picture["pixels"] + (picture["size"] or [])]
        assert not unsized, f"pictures without a size: {unsized}"

    def close(self) -> None:
        self.context.close()
