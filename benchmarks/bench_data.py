"""Feeding a network: batches from a prepared set, ours beside PyTorch's, and `minicnn prepare` beside bare decoding.

    python benchmarks/bench_data.py [--photographs DIR] [--images 2048] [--pairs 9] [--only NAME] [--results]

feed      batches of 128 crops of 224 x 224, mirrored half of the time, minus the mean image, colours shifted as in
          section 4.1 of the paper: our loader and augmentation, beside a torch DataLoader over the same memory map
          that does the same with torch operations (processes as workers, and none; the faster is the peer)
prepare   the whole step (read, decode, resize, checksum, mean, covariance, write) beside threads that decode and resize
          the same bytes and throw the result away
train     steps of the paper's AlexNet on batches from the prepared set, beside such steps on one batch over and over

Without --photographs (a folder of images), noise-free patterns are made in the sizes that ImageNet's photographs have.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from limits import BUSY, machine, others, slug
from PIL import Image
from side_by_side import compare, import_torch, in_turns, write_json

from minicnn.backend.cpu import make_ops, set_threads
from minicnn.data.augment import Augment
from minicnn.data.images import decode, is_image_file
from minicnn.data.input import InputPipeline
from minicnn.data.loader import Loader
from minicnn.data.prepare.run import prepare
from minicnn.data.preprocess import Preprocess
from minicnn.data.procedural import draw_image
from minicnn.data.source import open_data
from minicnn.data.statistics import measure
from minicnn.models.alexnet import alexnet
from minicnn.system.cores import available_cores
from minicnn.train.sgd import SGD

SIZE, CROP = 256, 224
GATES = {"feed": (1.0, 3000), "prepare": (0.9, None), "train": (0.97, None)}      # times as fast as the peer; images/s
BATCHES = 15                   # in one timed run
STEPS = 4                      # the same, of training: batches that the loader prepared before matter little
PER_SHARD = 256                # so that writing one shard overlaps with decoding the next, as in a large set


def photographs(root: Path, given: str | None, count: int) -> None:
    """root/train/<class>/*.jpg and root/val/..., `count` of 500 x 375, about the mean of ImageNet's."""
    files = sorted(p for p in Path(given).rglob("*") if is_image_file(str(p))) if given else []
    for number in range(count):
        part = "val" if number % 64 == 0 else "train"
        path = root / part / "ab"[number // 64 % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if files:
            with Image.open(files[number % len(files)]) as image:
                image = image.convert("RGB")
        else:
            image = Image.fromarray(draw_image(0, SIZE, number))
        image.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


# ---- feeding
def our_batches(folder: Path, batch: int):
    """A function that takes BATCHES batches from the loader and augments each."""
    train = open_data(folder).train
    statistics, augment, ops = measure(train), Augment(crop=CROP, colour="paper"), make_ops()
    loader = Loader(train, batch, shuffle=True, drop_last=True)
    y = ops.empty((batch, CROP, CROP, 3), "float32")
    mean = np.ascontiguousarray(statistics.mean, np.float32)

    def endless():
        for epoch in itertools.count():
            for images in loader.epoch(epoch):
                draw = augment.draw(0, epoch, images.sample_ids, images.images.shape[1:3], statistics.pca)
                ops.augment_forward(images.images, y, mean=mean, **draw)
                yield y

    return taking(endless())


class MemoryMapped:
    """The same images as a torch Dataset, written as its tutorials do: an item is a crop, ready as a tensor."""

    def __init__(self, torch, folder: Path, mean: np.ndarray, pca):
        self.torch, self.folder, self.maps = torch, folder, None
        shards = open_data(folder).train
        self.labels, self.mean = shards.labels, torch.from_numpy(mean.transpose(2, 0, 1).copy())
        values, vectors = pca
        self.eigenvectors = torch.from_numpy(vectors.astype(np.float32))
        self.scale = torch.from_numpy((255.0 * values).astype(np.float32))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        torch = self.torch
        if self.maps is None:                              # in each worker
            self.maps = [np.memmap(path, np.uint8, "r").reshape(-1, SIZE, SIZE, 3)
                         for path in sorted(self.folder.glob("train-*.rgb"))]
        image = self.maps[i // len(self.maps[0])][i % len(self.maps[0])]
        top, left = torch.randint(0, SIZE - CROP + 1, (2,)).tolist()
        crop = torch.from_numpy(image[top:top + CROP, left:left + CROP]).permute(2, 0, 1).float()
        crop -= self.mean[:, top:top + CROP, left:left + CROP]
        if torch.rand(()) < 0.5:
            crop = crop.flip(2)
        crop += (self.eigenvectors @ (0.1 * torch.randn(3) * self.scale))[:, None, None]
        return crop, int(self.labels[i])


def torch_batches(torch, folder: Path, batch: int, workers: int):
    """The same through a DataLoader."""
    statistics = measure(open_data(folder).train)
    data = MemoryMapped(torch, folder, statistics.mean, statistics.pca)
    options = {"num_workers": workers, "persistent_workers": True} if workers else {}
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, drop_last=True, **options)

    def endless():
        while True:
            yield from loader

    return taking(endless())


def taking(batches):
    return lambda: [None for _ in itertools.islice(batches, BATCHES)]


# ---- training
def steps(folder: Path, batch: int):
    """Two functions that take STEPS training steps: on batches from the shards, and on one batch that is repeated."""
    train, augment = open_data(folder).train, Augment(crop=CROP, colour="paper")
    statistics, net = measure(train), alexnet(num_classes=len(train.classes))
    pipeline = InputPipeline(net, Preprocess(crop=CROP), statistics.mean, augment=augment, pca=statistics.pca)
    loader, sgd = Loader(train, batch, shuffle=True, drop_last=True), SGD(net.params, 1e-4)

    def endless():
        for epoch in itertools.count():
            for images in loader.epoch(epoch):
                yield pipeline.train(images, epoch), images.labels

    def step(x, labels):
        net.loss(x, labels)
        net.backward()
        sgd.step(net.ops)

    batches = endless()
    x, labels = next(batches)
    x = x.copy()
    return (lambda: [step(*next(batches)) for _ in range(STEPS)]), (lambda: [step(x, labels) for _ in range(STEPS)])


# ---- preparing
def our_preparation(source: Path, out: Path):
    def run():
        shutil.rmtree(out, ignore_errors=True)
        prepare(str(source), str(out), per_shard=PER_SHARD, progress=False)

    return run


def bare_decoding(source: Path, workers: int):
    """Decoding and resizing alone, of bytes in memory, by as many threads."""
    data = [path.read_bytes() for path in sorted(source.rglob("*.jpg"))]

    def some(first: int) -> None:
        for jpeg in data[first:first + 16]:
            decode(jpeg, SIZE)

    def run():
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(some, range(0, len(data), 16)))

    return run


def row(name: str, images: int, ours, theirs, pairs: int) -> dict:
    result = compare(*in_turns(ours, theirs, pairs))
    a, b = (images / result[key] * 1e3 for key in ("ours_ms", "theirs_ms"))
    print(f"{name:34s}{a:9,.0f}{b:9,.0f} images/s   {1 / result['ratio']:.2f} times as fast "
          f"({1 / result['ratio_high']:.2f} to {1 / result['ratio_low']:.2f})", flush=True)
    return {"name": name, "ours_images_per_second": a, "theirs_images_per_second": b} | result


def page(report: dict) -> str:
    """The measurements and their gates, in Markdown."""
    lines = [f"# Feeding a network: {report['machine']}", "",
             "Written by `python benchmarks/bench_data.py --results`, never by hand. Both sides of a row are timed in "
             "turns; *times as fast* is the median of the ratios within a round, with its 90 % interval. "
             f"{report['images']:,} {'photographs' if report['photographs'] else 'patterns'} of 500 x 375, batches of "
             f"{report['batch']}, {report['cores']} cores, {report['peer']}, Python {report['python']}, NumPy "
             f"{report['numpy']}.",
             *([f"**Other programs used {100 * report['others']:.0f} % of the cores, so a trial.**"]
               if report["others"] > BUSY else []), "",
             "| what | images/s | beside | times as fast | gate | reached |", "|---|---:|---:|---:|---|---|"]
    for row in report["rows"]:
        ratio, low, high = (1 / row[key] for key in ("ratio", "ratio_high", "ratio_low"))
        least, rate = GATES[row["name"].split(",")[0]]
        reached = ratio >= least and (rate is None or row["ours_images_per_second"] >= rate)
        gate = f"{least:g}x" + (f", {rate:,} images/s" if rate else "")
        rates = (f"{row[side]:,.0f}" for side in ("ours_images_per_second", "theirs_images_per_second"))
        lines.append(f"| {row['name']} | {' | '.join(rates)} | **{ratio:.2f}** ({low:.2f} to {high:.2f}) | {gate} | "
                     f"{'yes' if reached else 'no'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", metavar="DIR", help="a folder of photographs; default: patterns")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--only", default="", choices=["feed", "prepare", "train"], metavar="NAME",
                        help="feed, prepare or train")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--results", metavar="DIR", type=Path, nargs="?", const=Path(__file__).parent / "results",
                        help="keep the run and write its page there (default: benchmarks/results)")
    options = parser.parse_args()
    busy = others()
    torch, cores = import_torch(), available_cores()
    warnings.filterwarnings("ignore", message=".*not writable.*")      # torch, of a tensor over a read-only map
    set_threads(cores)
    torch.set_num_threads(cores)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        count = options.images
        photographs(source, options.photographs, count)
        print(f"machine   {machine()}; {cores} cores; PyTorch {torch.__version__}; {count} images of 500 x 375, "
              f"{'photographs' if options.photographs else 'patterns'}\n{'':34s}{'ours':>9s}{'theirs':>9s}")
        prepare(str(source), str(out), per_shard=PER_SHARD, progress=False)
        if options.only in ("", "feed"):
            ours = our_batches(out, options.batch)
            for workers in (0, cores):
                rows.append(row(f"feed, beside DataLoader ({workers})", BATCHES * options.batch, ours,
                                torch_batches(torch, out, options.batch, workers), options.pairs))
        if options.only in ("", "prepare"):
            rows.append(row("prepare, beside bare decoding", count, our_preparation(source, Path(folder, "again")),
                            bare_decoding(source, cores), options.pairs))
        if options.only in ("", "train"):
            rows.append(row("train, beside a repeated batch", STEPS * options.batch, *steps(out, options.batch),
                            options.pairs))
    report = {"benchmark": "data", "batch": options.batch, "cores": cores, "images": count, "others": busy,
              "photographs": bool(options.photographs), "peer": f"PyTorch {torch.__version__}", "rows": rows}
    write_json(options.json, report)
    if options.results:
        kept = options.results / slug(machine()) / "bench_data.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        measured = {row["name"] for row in rows}            # with --only, the other rows stay
        earlier = json.loads(kept.read_text())["rows"] if kept.exists() else []
        report["rows"] = [row for row in earlier if row["name"] not in measured] + rows
        write_json(str(kept), report)
        (options.results / f"{kept.parent.name}-data.md").write_text(page(json.loads(kept.read_text())))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    main()
