"""What `minicnn look` was asked for: a trained network, photographs or a set, a class."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from minicnn.data.dataset import Dataset, Splits
from minicnn.data.input import InputPipeline
from minicnn.data.scan import scan
from minicnn.errors import ConfigError, expected
from minicnn.experiment.prepare import sets_for
from minicnn.experiment.settings import settle
from minicnn.graph import Net
from minicnn.system.terminal import is_terminal
from minicnn.train.runs.run_dir import read_settings
from minicnn.visualize.gradients import last_map
from minicnn.visualize.units import check_unit
from minicnn.visualize.views import grey_input, mean_words, photographs, views

RULES = {"deconv": "deconvnet", "guided": "guided", "gradient": "backprop"}


class Looking:
    """A trained network, the photographs, and what was asked for."""

    def __init__(self, options: argparse.Namespace, checkpoint: Path, net: Net, pipeline: InputPipeline,
                 classes: list[str]):
        self.options, self.checkpoint = options, checkpoint
        self.net, self.pipeline, self.classes = net, pipeline, classes
        self.layer = options.layer or last_map(net)
        self.shape = check_unit(net, self.layer, options.unit)

    def photographs(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(file, central crop, network input) of each; all are read before the first picture is made."""
        if not self.options.files:
            raise ConfigError(f"--what {self.options.what} is of photographs; name at least one: minicnn look RUN "
                              "photo.jpg")
        crops, x = views(self.pipeline, photographs(self.pipeline, self.options.files))
        return list(zip(self.options.files, crops, x, strict=True))

    def label(self) -> int | None:
        """The class that --class names, by name or number; None for the most probable one."""
        wanted = self.options.label
        if wanted is None or wanted in self.classes:
            return None if wanted is None else self.classes.index(wanted)
        if wanted.isdigit() and int(wanted) < len(self.classes):
            return int(wanted)
        raise ConfigError(f"there is no class {wanted!r}: {expected(wanted, self.classes)}")

    def true_label(self, file: str, x) -> tuple[int, str]:
        """The class of a photograph, and how it is known: --class, its folder, or else the most probable one."""
        folder = Path(file).absolute().parent.name
        if (label := self.label()) is not None:
            return label, "asked for"
        if folder in self.classes:
            return self.classes.index(folder), "its folder"
        return int(self.net.ops.to_host(self.net(x[None]))[0].argmax()), "the most probable"

    def named(self, label: int, score: float) -> str:
        return f"{self.classes[label]}, score {score:.3g}"

    def fill(self) -> tuple[object, str]:
        """What covers a part of a photograph, in the network's input, and the same for a caption."""
        grey = self.options.grey
        if grey is None:
            return 0.0, mean_words(self.pipeline)
        if not 0 <= grey <= 255:
            raise ConfigError(f"--grey must be from 0 to 255, got {grey}")
        return grey_input(self.pipeline, grey), f"grey {grey} of 255"

    # ---- sets
    def held_out(self) -> Dataset:
        """The held-out images; of them at most --images."""
        return self.some(held_out(self.options, self.checkpoint, self.pipeline))

    def training(self) -> Dataset:
        """The training images; of them at most --images."""
        return self.some(_splits(self.options, self.checkpoint, self.pipeline).train)

    def named_set(self) -> Dataset | None:
        """The photographs that are named, as a set; None where there are none."""
        files = self.options.files
        return self.some(photographs(self.pipeline, files)) if files else None

    def some(self, dataset: Dataset) -> Dataset:
        """At most --images of a set, drawn at random with a fixed seed; unreadable ones left out."""
        most = self.options.images
        if most is not None and most < len(dataset):
            chosen = np.sort(np.random.default_rng(0).permutation(len(dataset))[:most])
            dataset = dataset.select(chosen)
        scan(dataset, progress=is_terminal())
        return dataset


def held_out(options: argparse.Namespace, checkpoint: Path, pipeline: InputPipeline) -> Dataset:
    """The held-out images of --data or of the run: those of test, or of val where there are none."""
    splits = _splits(options, checkpoint, pipeline)
    return splits.val if splits.test is None else splits.test


def _splits(options: argparse.Namespace, checkpoint: Path, pipeline: InputPipeline) -> Splits:
    return sets_for(settle(options, checkpoint), read_settings(checkpoint), pipeline.preprocess)[0]
