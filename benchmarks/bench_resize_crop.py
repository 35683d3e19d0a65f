"""Crops of photographs, resized with antialiasing to 224 x 224 floats, beside Pillow.

Ours is one pass over a batch (kernels/cpu/resize_crop.py). Beside it, as many threads as we use do image by image what
a loader in Python does: Pillow's resize(box=...) of an image that is in memory, then NumPy's mirror, and the mean
subtracted. Boxes are those of the papers: a scale of 256 to 480 for the short side (ResNet), 8 to 100 % of the area
(GoogLeNet), and the whole short side.

    python benchmarks/bench_resize_crop.py --threads 1 --pairs 15
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from limits import machine, others
from PIL import Image
from side_by_side import compare, in_turns, write_json

from minicnn.backend.cpu import make_ops, set_threads
from minicnn.data.procedural import draw_image
from minicnn.system.cores import available_cores

CROP, HEIGHT, WIDTH = 224, 512, 683
PILLOW = Image.Resampling.BILINEAR


def photographs(count: int) -> list[np.ndarray]:
    """uint8 (HEIGHT, WIDTH, 3)."""
    return [np.ascontiguousarray(draw_image(0, WIDTH, number)[:HEIGHT]) for number in range(count)]


def scaled(rng, n: int, low: int, high: int) -> tuple:
    """Crops of images whose short side is resized to low..high: top, left, height, width."""
    side = CROP * HEIGHT / rng.integers(low, high + 1, n)
    return rng.random(n) * (HEIGHT - side), rng.random(n) * (WIDTH - side), side, side


def areas(rng, n: int) -> tuple:
    """8 to 100 % of the area, as far as it fits; aspect 3/4 to 4/3."""
    area, ratio = rng.uniform(0.08, 1, n) * HEIGHT * WIDTH, np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3), n))
    height, width = np.sqrt(area / ratio).clip(max=HEIGHT), np.sqrt(area * ratio).clip(max=WIDTH)
    return rng.random(n) * (HEIGHT - height), rng.random(n) * (WIDTH - width), height, width


def sides(images: list[np.ndarray], box: tuple, pool: ThreadPoolExecutor):
    """Our batch, and theirs, as functions that return (N, CROP, CROP, 3); they must agree to one grey level."""
    ops, n = make_ops(), len(images)
    flat, flip = np.concatenate([image.ravel() for image in images]), np.arange(n, dtype=np.uint8) % 2
    places = {"offsets": np.arange(n, dtype=np.int32) * images[0].size,
              "heights": np.full(n, HEIGHT, np.int32), "widths": np.full(n, WIDTH, np.int32)}
    options = dict(zip(("top", "left", "height", "width"), box, strict=True)) | {"flip": flip}
    mean, shift = np.full((CROP, CROP, 3), 117, np.float32), np.zeros((n, 3), np.float32)
    y, theirs_y = np.empty((2, n, CROP, CROP, 3), np.float32)
    pictures = [Image.fromarray(image) for image in images]

    def one(k: int) -> None:
        top, left, height, width = (values[k] for values in box)
        pixels = np.asarray(pictures[k].resize((CROP, CROP), PILLOW, box=(left, top, left + width, top + height)))
        np.subtract(pixels[:, ::-1] if flip[k] else pixels, mean, out=theirs_y[k])

    def ours():
        ops.resize_crop_forward(flat, y, mean=mean, shift=shift, **places, **options)
        return y

    def theirs():
        list(pool.map(one, range(n)))
        return theirs_y

    if (worst := np.abs(ours() - theirs()).max()) > 1.001:
        raise SystemExit(f"error: ours and Pillow's differ by {worst:.2f} grey levels, where 1 is allowed")
    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=available_cores(), metavar="N")
    parser.add_argument("--pairs", type=int, default=15, metavar="N", help="rounds (default 15; fewer are a trial)")
    parser.add_argument("--images", type=int, default=32, metavar="N", help="in a batch (default 32)")
    parser.add_argument("--json", metavar="FILE", help="keep the results")
    options = parser.parse_args()
    set_threads(options.threads)
    rng, images, busy, rows = np.random.default_rng(0), photographs(options.images), others(), []
    cases = {"short side 256 to 480": scaled(rng, len(images), 256, 480), "8 to 100 % of the area":
             areas(rng, len(images)), "short side 224": scaled(rng, len(images), CROP, CROP)}
    print(f"machine   {machine()}; {options.threads} threads; Pillow {Image.__version__}; photographs of {HEIGHT} x "
          f"{WIDTH}; other programs use {100 * busy:.0f} % of the cores")
    with ThreadPoolExecutor(options.threads) as pool:
        for name, box in cases.items():
            result = compare(*in_turns(*sides(images, box, pool), options.pairs))
            ours, theirs = (len(images) / result[side] * 1e3 for side in ("ours_ms", "theirs_ms"))
            rows.append({"name": name, "ours_images_per_second": ours, "theirs_images_per_second": theirs, **result})
            print(f"{name:26s}{ours:9,.0f} images/s, Pillow {theirs:7,.0f}   {1 / result['ratio']:.2f} times as fast "
                  f"({1 / result['ratio_high']:.2f} to {1 / result['ratio_low']:.2f})", flush=True)
    write_json(options.json, {"benchmark": "resize_crop", "machine": machine(), "others": busy,
                              "threads": options.threads, "rows": rows})


if __name__ == "__main__":
    main()
