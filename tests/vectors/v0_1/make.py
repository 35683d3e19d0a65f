"""Makes the files beside it, as minicnn 0.1.0 wrote them: newer versions must still load and resume them.

It uses the names of that version, and so must be run in a checkout of commit 8d88fb0 (no newer one), from its root and
after its `pip install -e .[dev]`, on one thread. This file, and what it writes, may lie elsewhere:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=. python PATH/OF/make.py [RUN/last.safetensors]

The argument is a checkpoint of a run of examples/alexnet_imagenet.py in that version, of any length; without it
alexnet_meta.json stays as it is. All the rest is computed by the reference backend.

    net.safetensors     Net.save of tests/graphs.py small();   net_expected.npz    x, and the logits that it gives
    run/                a run of tests/train/small_run.py small_trainer(**SETTINGS), stopped within its second epoch;
    run_expected.npz    parameters, and velocity/NAME, that it ends with when it is resumed to EPOCHS epochs
    cifar/              the best checkpoint of a cifar_18pct on drawn images, and an image, photo.png;
    cifar_expected.json class -> probability that predict gives for that image
    alexnet_meta.json   the metadata "minicnn" of the checkpoint named above
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from tests.graphs import small
from tests.train.small_run import load_example, small_trainer

import minicnn
from minicnn import models
from minicnn.data.source import open_data
from minicnn.train.checkpoint import load_checkpoint
from minicnn.train.loop import Trainer
from minicnn.train.predict import predict

HERE = Path(__file__).resolve().parent
SETTINGS, EPOCHS, STOP = {"images": 48, "save_every": 2}, 3, 9          # steps; 6 are an epoch
COLOURS = {"black": (40, 40, 40), "blue": (40, 40, 210), "cyan": (40, 210, 210), "green": (40, 210, 40),
           "grey": (125, 125, 125), "magenta": (210, 40, 210), "orange": (210, 125, 40), "red": (210, 40, 40),
           "white": (210, 210, 210), "yellow": (210, 210, 40)}


def make_net() -> None:
    net = small(device="reference", dtype="float32")
    x = np.random.default_rng(2012).standard_normal((2, *net.input_shape)).astype(np.float32)
    net.save(HERE / "net.safetensors")
    np.savez(HERE / "net_expected.npz", x=x, logits=net.forward(x))


def make_run() -> None:
    shutil.rmtree(HERE / "run", ignore_errors=True)
    trainer = small_trainer(HERE / "run", **SETTINGS)
    step, done = trainer.sgd.step, []

    def stopping(*arguments, **options):
        step(*arguments, **options)
        done.append(1)
        if len(done) == STOP:
            os.kill(os.getpid(), signal.SIGTERM)                         # the trainer lets the step finish, and saves

    trainer.sgd.step = stopping
    assert trainer.fit(EPOCHS).interrupted
    assert (trainer.epoch, trainer.step) == divmod(STOP, len(trainer.loader))
    with tempfile.TemporaryDirectory() as folder:
        resumed = small_trainer(shutil.copytree(HERE / "run", Path(folder, "run")), **SETTINGS).resume()
        assert not resumed.fit(EPOCHS).interrupted
        saved = load_checkpoint(resumed.last_path)
    velocities = {f"velocity/{name}": array for name, array in saved.velocities.items()}
    np.savez(HERE / "run_expected.npz", **saved.params, **velocities)


def draw(colour, rng) -> Image.Image:
    """A blot of this colour, on noise."""
    y, x = np.mgrid[:32, :32]
    row, column, radius = rng.uniform(8, 24), rng.uniform(8, 24), rng.uniform(6, 14)
    inside = np.hypot(y - row, x - column) < radius
    image = np.where(inside[:, :, None], colour, 125) + rng.normal(0, 25, (32, 32, 3))
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def make_cifar() -> None:
    """As examples/cifar10.py, but in batches of 10 and from louder weights, so that few steps do tell colours apart."""
    example, rng = load_example("cifar10"), np.random.default_rng(10)
    recipe = example.recipe_of("18pct", True, "relu", len(COLOURS), 3, "quick")
    recipe = dataclasses.replace(recipe, sgd=dataclasses.replace(recipe.sgd, batch=10))
    net = models.cifar_18pct(lrn=True, activation="relu", num_classes=len(COLOURS), device="reference")
    net.params["conv1.w"].data[...] *= 100
    shutil.rmtree(HERE / "cifar", ignore_errors=True)
    (HERE / "cifar").mkdir()
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("train", 20), ("val", 3)):
            for name, colour in COLOURS.items():
                Path(folder, "colours", part, name).mkdir(parents=True)
                for number in range(count):
                    draw(colour, rng).save(Path(folder, "colours", part, name, f"{number}.png"))
        splits = open_data(Path(folder, "colours"), size=example.SIZE)
        trainer = Trainer(net, recipe, splits.train, splits.val, Path(folder, "run"), progress=False, say=None)
        trainer.fit(3)
        shutil.copyfile(trainer.best_path, HERE / "cifar/best.safetensors")
    draw(COLOURS["orange"], rng).save(HERE / "cifar/photo.png")
    [(_, guesses)] = predict(HERE / "cifar/best.safetensors", [str(HERE / "cifar/photo.png")], device="reference",
                             top=len(COLOURS))
    (HERE / "cifar_expected.json").write_text(json.dumps(dict(guesses), indent=1) + "\n")


def make_alexnet_meta(checkpoint: str) -> None:
    meta = load_checkpoint(checkpoint, parts=()).meta
    (HERE / "alexnet_meta.json").write_text(json.dumps(meta, indent=1) + "\n")


if __name__ == "__main__":
    assert minicnn.__version__ == "0.1.0", "to be run in a checkout of commit 8d88fb0"
    make_net()
    make_run()
    make_cifar()
    for checkpoint in sys.argv[1:2]:
        make_alexnet_meta(checkpoint)
    for path in sorted(path for path in HERE.rglob("*") if path.is_file()):
        print(f"{path.relative_to(HERE)}: {path.stat().st_size:,} bytes")
