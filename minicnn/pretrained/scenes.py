"""Draws the sample images in samples/: scenes with one thing of a class of CIFAR-10 each. They are no photographs.

    python -m minicnn.pretrained.scenes

Shapes are placed in units of the image's side, drawn four times as large and reduced, which smooths their edges; smooth
noise, the same for every run, takes the flatness out of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin

from minicnn.pretrained import SAMPLES

SIDE, LARGER = 96, 4
Colour = tuple[int, int, int]
WHITE, BLACK, GLASS, TYRE = (236, 236, 230), (22, 22, 26), (70, 90, 108), (28, 28, 30)


class Canvas:
    """An image to draw on; x to the right, y down, both from 0 to 1."""

    def __init__(self, top: Colour, bottom: Colour):
        """Begin with a gradient from one colour to the other."""
        share = np.linspace(0, 1, SIDE * LARGER)[:, None, None]
        colours = np.array(top) * (1 - share) + np.array(bottom) * share
        self.image = Image.fromarray(np.broadcast_to(colours, (len(share), len(share), 3)).astype(np.uint8))
        self.pen = ImageDraw.Draw(self.image)

    def shape(self, colour: Colour, *points: tuple[float, float]) -> None:
        """A polygon."""
        self.pen.polygon([(x * self.image.width, y * self.image.height) for x, y in points], colour)

    def box(self, colour: Colour, left: float, top: float, right: float, bottom: float) -> None:
        self.shape(colour, (left, top), (right, top), (right, bottom), (left, bottom))

    def oval(self, colour: Colour, x: float, y: float, width: float, height: float) -> None:
        """An ellipse by its centre and half axes."""
        side = self.image.width
        self.pen.ellipse([side * v for v in (x - width, y - height, x + width, y + height)], colour)

    def wheel(self, x: float, y: float, radius: float) -> None:
        self.oval(TYRE, x, y, radius, radius)
        self.oval((150, 150, 152), x, y, radius / 2, radius / 2)

    def pixels(self, grain: float = 7) -> np.ndarray:
        """uint8 (SIDE, SIDE, 3), with noise of this standard deviation, in grey levels."""
        small = np.asarray(self.image.reduce(LARGER), np.float64)
        noise = np.random.RandomState(0).standard_normal((2, SIDE, SIDE, 1))       # a generator that never changes
        coarse = sum(np.roll(noise[1], (row, column), (0, 1)) for row in range(4) for column in range(4)) / 4
        return (small + grain * (noise[0] + coarse) / 2**0.5).clip(0, 255).astype(np.uint8)


def airplane() -> np.ndarray:
    """An airliner before a blue sky."""
    c = Canvas((86, 138, 204), (170, 202, 232))
    c.shape((150, 154, 162), (0.46, 0.50), (0.60, 0.50), (0.80, 0.24), (0.73, 0.24))            # the far wing
    c.shape((214, 216, 220), (0.10, 0.49), (0.17, 0.44), (0.80, 0.44), (0.93, 0.40), (0.90, 0.50), (0.76, 0.56),
            (0.17, 0.57), (0.10, 0.53))
    c.shape((60, 84, 140), (0.78, 0.45), (0.90, 0.22), (0.96, 0.22), (0.93, 0.46))              # the fin
    c.shape((120, 124, 132), (0.17, 0.57), (0.76, 0.56), (0.82, 0.53), (0.13, 0.54))
    c.shape((176, 180, 188), (0.40, 0.53), (0.58, 0.53), (0.76, 0.84), (0.68, 0.84))            # the near wing
    c.oval((84, 90, 100), 0.50, 0.64, 0.06, 0.035)
    for x in np.arange(0.24, 0.72, 0.05):
        c.box(GLASS, x, 0.47, x + 0.02, 0.49)
    c.shape(GLASS, (0.13, 0.47), (0.18, 0.45), (0.19, 0.48))
    return c.pixels(4)


def automobile() -> np.ndarray:
    """A red car on a road."""
    c = Canvas((150, 176, 200), (196, 204, 206))
    c.box((96, 122, 84), 0, 0.34, 1, 0.52)
    c.box((118, 118, 120), 0, 0.50, 1, 1)
    c.oval((62, 62, 64), 0.50, 0.78, 0.46, 0.07)
    body = (184, 30, 34)
    c.shape(body, (0.05, 0.70), (0.07, 0.54), (0.24, 0.49), (0.36, 0.32), (0.68, 0.32), (0.82, 0.48), (0.94, 0.52),
            (0.96, 0.70), (0.92, 0.75), (0.08, 0.75))
    c.shape(GLASS, (0.30, 0.49), (0.39, 0.36), (0.51, 0.36), (0.51, 0.49))
    c.shape(GLASS, (0.54, 0.49), (0.54, 0.36), (0.66, 0.36), (0.75, 0.49))
    c.box((130, 18, 24), 0.07, 0.66, 0.94, 0.69)
    c.oval((246, 236, 190), 0.10, 0.58, 0.03, 0.03)
    c.oval((240, 90, 60), 0.93, 0.57, 0.02, 0.03)
    for x in (0.25, 0.76):
        c.wheel(x, 0.74, 0.105)
    return c.pixels(6)


def bird() -> np.ndarray:
    """A small bird on a branch."""
    c = Canvas((116, 150, 92), (150, 176, 118))
    c.shape((92, 70, 50), (0, 0.80), (1, 0.70), (1, 0.76), (0, 0.87))
    c.shape((92, 62, 40), (0.20, 0.62), (0.02, 0.80), (0.10, 0.84), (0.34, 0.70))               # the tail
    c.oval((132, 94, 62), 0.46, 0.54, 0.24, 0.18)
    c.oval((206, 124, 76), 0.54, 0.58, 0.16, 0.13)
    c.oval((132, 94, 62), 0.66, 0.36, 0.13, 0.12)
    c.oval((212, 128, 78), 0.69, 0.42, 0.09, 0.07)
    c.shape((84, 58, 40), (0.26, 0.48), (0.52, 0.42), (0.46, 0.62), (0.20, 0.66))               # the wing
    c.shape((60, 50, 36), (0.77, 0.34), (0.90, 0.38), (0.77, 0.41))
    c.oval(BLACK, 0.70, 0.34, 0.022, 0.022)
    for x in (0.46, 0.54):
        c.box((70, 50, 40), x, 0.69, x + 0.018, 0.79)
    return c.pixels(6)


def frog() -> np.ndarray:
    """A frog on sand, from the front."""
    c = Canvas((150, 128, 98), (176, 152, 118))
    c.oval((104, 86, 64), 0.50, 0.80, 0.42, 0.10)
    for side in (-1, 1):                                                                         # hind legs
        c.oval((78, 102, 46), 0.50 + side * 0.30, 0.68, 0.15, 0.14)
        c.oval((70, 92, 42), 0.50 + side * 0.34, 0.81, 0.13, 0.04)
    c.oval((98, 126, 56), 0.50, 0.58, 0.27, 0.25)
    c.oval((176, 178, 118), 0.50, 0.70, 0.17, 0.13)
    c.oval((108, 138, 60), 0.50, 0.40, 0.25, 0.15)
    for side in (-1, 1):
        c.oval((108, 138, 60), 0.50 + side * 0.17, 0.28, 0.08, 0.08)
        c.oval((214, 180, 70), 0.50 + side * 0.17, 0.27, 0.055, 0.055)
        c.oval(BLACK, 0.50 + side * 0.17, 0.27, 0.03, 0.045)
        c.shape((84, 110, 48), (0.50 + side * 0.16, 0.62), (0.50 + side * 0.24, 0.62), (0.50 + side * 0.22, 0.86),
                (0.50 + side * 0.12, 0.86))
        for x, y in ((0.10, 0.50), (0.18, 0.56), (0.05, 0.58)):
            c.oval((66, 88, 40), 0.50 + side * x, y, 0.025, 0.02)
    c.shape((58, 70, 36), (0.30, 0.43), (0.50, 0.47), (0.70, 0.43), (0.50, 0.49))
    return c.pixels(9)


def ship() -> np.ndarray:
    """A cargo ship on the sea."""
    c = Canvas((168, 192, 214), (206, 216, 222))
    c.box((52, 86, 118), 0, 0.62, 1, 1)
    for y, x in ((0.80, 0.10), (0.88, 0.52), (0.93, 0.16), (0.84, 0.70)):
        c.box((84, 118, 148), x, y, x + 0.22, y + 0.012)
    c.shape((38, 42, 54), (0.06, 0.52), (0.94, 0.50), (0.87, 0.70), (0.13, 0.70))
    c.shape((142, 44, 38), (0.105, 0.65), (0.89, 0.65), (0.87, 0.70), (0.13, 0.70))
    c.box(WHITE, 0.14, 0.32, 0.32, 0.52)
    c.box(WHITE, 0.17, 0.25, 0.29, 0.32)
    c.box((176, 60, 44), 0.21, 0.14, 0.27, 0.25)
    for y in (0.35, 0.42):
        c.box(GLASS, 0.16, y, 0.30, y + 0.025)
    for k, colour in enumerate(((176, 92, 52), (70, 104, 140), (158, 150, 136), (132, 60, 50))):
        c.box(colour, 0.37 + 0.12 * k, 0.41 + 0.02 * (k % 2), 0.47 + 0.12 * k, 0.51)
    c.box((70, 74, 80), 0.615, 0.20, 0.63, 0.43)
    return c.pixels(5)


def truck() -> np.ndarray:
    """A lorry with a white body."""
    c = Canvas((160, 184, 206), (200, 208, 210))
    c.box((112, 128, 98), 0, 0.52, 1, 0.66)
    c.box((120, 118, 116), 0, 0.64, 1, 1)
    c.oval((66, 64, 64), 0.50, 0.84, 0.48, 0.05)
    c.box(WHITE, 0.05, 0.22, 0.66, 0.72)
    c.box((196, 196, 192), 0.05, 0.22, 0.66, 0.26)
    c.box((52, 54, 58), 0.05, 0.71, 0.94, 0.77)
    c.shape((40, 84, 150), (0.68, 0.73), (0.68, 0.36), (0.84, 0.36), (0.92, 0.54), (0.95, 0.58), (0.95, 0.73))
    c.shape(GLASS, (0.74, 0.54), (0.74, 0.41), (0.83, 0.41), (0.89, 0.54))
    c.oval((246, 236, 190), 0.93, 0.66, 0.02, 0.025)
    for x in (0.17, 0.33, 0.81):
        c.wheel(x, 0.79, 0.085)
    return c.pixels(6)


SCENES: dict[str, Callable[[], np.ndarray]] = {
    scene.__name__: scene for scene in (airplane, automobile, bird, frog, ship, truck)}


def main() -> None:
    """Write the images of SCENES as PNG."""
    for name, scene in SCENES.items():
        words = PngImagePlugin.PngInfo()
        words.add_text("Source", "drawn by minicnn/pretrained/scenes.py; not a photograph")
        Image.fromarray(scene()).save(SAMPLES / f"drawn-{name}.png", pnginfo=words, optimize=True)


if __name__ == "__main__":
    main()
