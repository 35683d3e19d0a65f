"""The kinds of files that minicnn reads: how a few of each are made, and how they are read."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from minicnn.cli import verify
from minicnn.data.images import examine
from minicnn.data.prepare.files import plain_file
from minicnn.data.prepare.labels import KNOWN, find_labels, read_words
from minicnn.data.prepare.run import prepare
from minicnn.data.prepared import open_prepared
from minicnn.data.statistics import measure
from minicnn.evaluate.predict import read_words as predicted_words
from minicnn.experiment.trained import load_trained
from minicnn.system.files import read_safetensors, signed, write_json, write_safetensors
from minicnn.train.runs.checkpoint import load_checkpoint
from minicnn.train.runs.results import add_to_page, known_runs
from tests.data.test_statistics import in_memory
from tests.fuzz.foreign import FOREIGN
from tests.helpers import ilsvrc
from tests.helpers.small_run import save_tree, small_net, small_trainer

OLD = Path(__file__).parents[1] / "vectors/v0_1"


@dataclass
class Kind:
    """make(folder): makes the files.   files: patterns of those that are damaged.   read(folder, file): what reading
    one gives.   ours: minicnn writes them with checksums, so that none may be read as something else.
    foreign: other programs write them, so that reading executes nothing and takes little memory.   weight: of all
    mutants, how many are of this kind."""

    make: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path, Path], object]
    ours: bool = True
    foreign: bool = False
    weight: float = 1.0


def digest(value) -> int:
    """Of arrays and plain data."""
    return zlib.crc32(pickle.dumps(value))


# ---- runs
def make_run(folder: Path) -> None:
    small_trainer(folder / "run", images=16).fit(1)
    write_json(folder / "run/test.json", signed({"epoch": 1, "centre crop": {"top1": 0.25, "loss": 1.5}}, "test"))


def read_checkpoint(folder: Path, file: Path):
    saved = load_checkpoint(file)
    return saved.arrays(), saved.velocities, saved.data, dict(saved.meta)


@cache
def trainer(images: int, **options):
    return small_trainer("nowhere", images=images, **options)


def make_unsigned_run(folder: Path) -> None:
    """As made by a version without checksums."""
    make_run(folder)
    write_safetensors(folder / "run/last.safetensors", *read_safetensors(folder / "run/last.safetensors"),
                      checksums=False)


def use_unsigned(folder: Path, file: Path):
    """Every use of a checkpoint; only the structure can be checked."""
    load_trained(file, "reference")
    trainer(16).resume(file)


def read_metrics(folder: Path, file: Path):
    """What the last checkpoint knows; a run that is resumed drops the rest."""
    check(file)
    return file.read_bytes()[:load_checkpoint(folder / "run/last.safetensors", parts=()).meta["metrics_bytes"]]


def read_test(folder: Path, file: Path):
    check(file)
    return json.loads(file.read_bytes())


def check(file: Path) -> None:
    """As `minicnn verify` does."""
    for _, check in verify.checks(file):
        check()


def read_weights(folder: Path, file: Path):
    net = small_net()
    net.load(file)
    return {name: param.data for name, param in net.params.items()}


def make_page(folder: Path) -> None:
    reports = [{"command": f"minicnn train --seed={k}", "machine": "m", "top1": 0.5 + k} for k in range(3)]
    add_to_page(folder / "page", reports, lambda report: report["command"], lambda reports: [])


# ---- data
def make_set(folder: Path) -> None:
    for part in ("train", "val"):
        save_tree(folder / f"tree/{part}", 3, size=16)
    for name in ("rgb", "jpeg"):
        prepare(str(folder / "tree"), str(folder / name), size=8, jpeg=name == "jpeg", per_shard=4, progress=False)


def read_set(folder: Path, file: Path):
    sets = open_prepared(file.parent)
    read = [[part.read(k) for k in range(len(part))] + [part.labels] for part in (sets.train, sets.val)]
    return read, sets.classes, sets.train.statistics.mean, sets.train.statistics.pca


def make_images(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    image = ilsvrc.generated(1)
    for name, options in {"a.jpg": {}, "turned.jpg": {"exif": exif}, "b.jpg": {"progressive": True}, "c.png": {},
                          "d.bmp": {}, "e.webp": {}, "f.gif": {}, "g.tiff": {}}.items():
        image.save(folder / name, **options)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(160 * np.arange(400, dtype=np.uint16).reshape(20, 20)).save(folder / "deep.png")


def make_labels(folder: Path) -> None:
    ilsvrc.put(folder, ilsvrc.devkit() | {
        "LOC_val_solution.csv": ilsvrc.kaggle_csv(), "val_image_to_1k_label.json": ilsvrc.by_index("json"),
        "val.txt": ilsvrc.by_index("txt"),
        "imagenet_2012_validation_synset_labels.txt": "\n".join(ilsvrc.val_wnids()).encode(),
        "imagenet1k_to_21k.json": json.dumps({k: name for k, name in enumerate(sorted(ilsvrc.DEVKIT_IDS))}).encode(),
        "synset_words.txt": "".join(f"{name} words of {name}\n" for name in ilsvrc.DEVKIT_IDS).encode()})


def read_labels(folder: Path, file: Path):
    """As a list of classes, with what is read beside it; what is only read beside others, with each of them."""
    found = {path.name: plain_file(str(path)) for path in folder.rglob("*") if path.is_file()}
    beside = [found[name] for name in ("meta.mat", "imagenet1k_to_21k.json", "synset_words.txt")]
    lists = [name for name in found if name in KNOWN and file.name in (name, "meta.mat", "imagenet1k_to_21k.json")]
    read_words(beside)
    for name in lists:
        labels = find_labels([found[name], *beside[:2]], sorted(ilsvrc.DEVKIT_IDS), str(folder), given=True)
        labels.apply(sorted(ilsvrc.val_images()))


def make_tars(folder: Path) -> None:
    files = {f"train/{c}/{k}.jpg": ilsvrc.encode(ilsvrc.generated(k)) for c in "ab" for k in range(2)}
    (folder / "plain.tar").write_bytes(ilsvrc.tar_bytes(files))
    samples = {f"{k}.{end}": data for k in range(3) for end, data in (
        ("jpg", ilsvrc.encode(ilsvrc.generated(k))), ("json", json.dumps({"label": k % 2}).encode()))}
    (folder / "samples.tar").write_bytes(ilsvrc.tar_bytes(samples))
    for mode, name in (("w:gz", "a.tar.gz"), ("w:bz2", "a.tar.bz2"), ("w:xz", "a.tar.xz")):
        with tarfile.open(folder / name, mode) as tar:
            for inside, data in files.items():
                member = tarfile.TarInfo(inside)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read_tar(folder: Path, file: Path):
    shutil.rmtree(folder / "out", ignore_errors=True)
    prepare(str(file), str(folder / "out"), size=8, workers=1, progress=False)


KINDS = {
    "checkpoint": Kind(make_run, ("run/last.safetensors",), read_checkpoint),
    "metrics": Kind(make_run, ("run/metrics.jsonl",), read_metrics),
    "test.json": Kind(make_run, ("run/test.json",), read_test),
    "weights": Kind(lambda folder: small_net().save(folder / "net.safetensors"), ("net.safetensors",), read_weights),
    "page": Kind(make_page, ("page.json",), lambda folder, file: known_runs(file)),
    "statistics": Kind(lambda folder: measure(in_memory(4), folder / "s.safetensors", progress=False),
                       ("s.safetensors",), lambda folder, file: measure(in_memory(4), file, progress=False)),
    "prepared set": Kind(make_set, ("rgb/prepared.json", "rgb/*.index", "rgb/*.rgb", "rgb/statistics.safetensors",
                                    "jpeg/prepared.json", "jpeg/*.index", "jpeg/*.jpegs"), read_set),
    "words": Kind(lambda folder: write_json(folder / "words.json", signed({"n0": "a cat", "n1": "a dog"}, "words")),
                  ("words.json",), lambda folder, file: predicted_words(file)),
    "checkpoint of 0.1.0": Kind(lambda folder: shutil.copytree(OLD / "run", folder / "run") and None,
                                ("run/last.safetensors",),
                                lambda folder, file: trainer(48, save_every=2).resume(file) and None, ours=False),
    "checkpoint, unsigned": Kind(make_unsigned_run, ("run/last.safetensors",), use_unsigned, ours=False),
    "image": Kind(make_images, ("*.*",), lambda folder, file: examine(file.read_bytes(), 16), ours=False),
    "labels": Kind(make_labels, ("**/*.txt", "**/*.csv", "**/*.json", "**/*.mat"), read_labels, ours=False),
    "tar": Kind(make_tars, ("*.tar*",), read_tar, ours=False, weight=0.1),
    **{name: Kind(*one, ours=False, foreign=True) for name, one in FOREIGN.items()},
}
