"""A small training run, and the same in a process of its own, for tests that kill it."""

import importlib.util
import multiprocessing
import os
import sys
from pathlib import Path

from PIL import Image

from minicnn.builder import Builder
from minicnn.data.augment import Augment
from minicnn.data.procedural import CLASSES, draw_image, procedural_sets
from minicnn.init import Normal
from minicnn.train.loop import Trainer
from minicnn.train.recipe import Recipe, SGDRecipe
from minicnn.train.schedule import Plateau
from tests.helpers.running_mean import RunningMean


def load_example(name: str = "alexnet_imagenet"):
    """examples/<name>.py as a module of its own, whose names a test may replace."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / f"examples/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_net(device: str = "reference", seed: int = 1, classes: int = 4, size: int = 24, with_state: bool = False):
    """conv, LRN, pooling, dropout: what an AlexNet has, for images of 24 x 24; and a layer with state, where wanted."""
    b = Builder((size, size, 3), name="small")
    b.conv("conv1", 8, 5, stride=2)
    if with_state:
        b.layer("mean1", RunningMean(8))
    b.relu()
    b.lrn("norm1")
    b.maxpool("pool1", 3, stride=2)
    b.flatten()
    b.linear("fc2", 32, init=Normal(0.05))
    b.relu()
    b.dropout("drop2")
    b.linear("fc3", classes, init=Normal(0.1))
    b.loss()
    return b.net(seed=seed, device=device)


def small_recipe(lr: float = 0.002, batch: int = 8) -> Recipe:
    return Recipe(net={"model": "small"}, augment=Augment(crop=24, colour="paper"),
                  optimiser=SGDRecipe(lr=lr, batch=batch), schedule=Plateau(patience=1))


def small_trainer(run_dir, *, images: int = 96, save_every: int = 0, net=None, recipe=None, **options) -> Trainer:
    train, val, _ = procedural_sets((images, 40, 4), seed=3, size=32)
    for dataset in (train, val):
        dataset.keep_decoded(2**24)
    return Trainer(net or small_net(), recipe or small_recipe(), train, val, run_dir, save_every=save_every,
                   progress=False, **{"say": None, **options})


def save_tree(root, per_class: int, classes: int = 2, size: int = 64) -> None:
    """A folder of PNG files, one folder per class."""
    for number in range(per_class * len(CLASSES)):
        if number % len(CLASSES) < classes:
            folder = Path(root, CLASSES[number % len(CLASSES)])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_image(7, size, number)).save(folder / f"{number}.png")


def _train(run_dir: str, errors: str, ready, settings: dict) -> None:
    """What a RunProcess does."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    epochs, net = settings.pop("epochs"), small_net(with_state=settings.pop("with_state", False))
    recipe = Recipe.from_dict(small_recipe().to_dict() | settings.pop("recipe", {}))
    trainer = small_trainer(run_dir, net=net, recipe=recipe, **settings)
    if trainer.last_path.exists():
        trainer.resume()
    ready.send("training")
    sys.exit(130 if trainer.fit(epochs).interrupted else 0)


class RunProcess:
    """A process about to take its first step, resumed from last.safetensors where there is one.

    Settings are those of small_trainer, epochs, with_state of small_net, and parts of the recipe that replace ours.
    It is forked from a process that has imported everything, since the imports take longer than a run.
    """

    CONTEXT = multiprocessing.get_context("forkserver")

    def __init__(self, run_dir, **settings):
        self.CONTEXT.set_forkserver_preload([__name__])
        self._errors, (ready, theirs) = Path(f"{run_dir}.stderr"), self.CONTEXT.Pipe(duplex=False)
        self._process = self.CONTEXT.Process(target=_train, args=(str(run_dir), str(self._errors), theirs, settings))
        self._process.start()
        theirs.close()
        assert ready.recv() == "training"

    def poll(self) -> int | None:
        """The exit code; None before the end."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def finish(self) -> int:
        """The exit code, once it has ended."""
        self._process.join(300)
        return self.poll()

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        return self._errors.read_text()
