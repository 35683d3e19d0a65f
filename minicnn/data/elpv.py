"""The photographs that the example trains on by default: 2,624 solar cells, sound or defective.

Electroluminescence photographs of 44 modules, 300x300 and grey, each labelled by experts with the probability 0, 1/3,
2/3 or 1 of a defect (C. Buerhop-Lutz et al., "A benchmark for visual identification of defective solar cells in
electroluminescence imagery", 2018; S. Deitsch et al., "Automatic classification of defective photovoltaic module cells
in electroluminescence images", 2019). The task here: p >= 0.5. Always answering "sound" has an accuracy of 68.7 %.

The images come in the package `elpv-dataset`, licensed CC BY-NC-SA 4.0; it is located, not imported. The split, 1,670
for training, 298 for validation and 656 for test, is fixed: it never depends on the training seed. Each part holds the
probabilities and the two kinds of cell (mono- and polycrystalline) in the same proportions.
"""

from __future__ import annotations

import importlib.util
import os
from functools import partial

import numpy as np

from minicnn.data.dataset import Dataset, Splits
from minicnn.data.images import load_under
from minicnn.data.split import stratified_split
from minicnn.errors import DataError

CLASSES = ("sound", "defective")
VAL, TEST, ALL = 298, 656, 2624
INSTALL = "pip install 'minicnn[example]'"


class MissingPackageError(DataError):
    """The package with the photographs is not installed; `.install` is the command that installs it."""

    def __init__(self):
        super().__init__(f"the photographs of solar cells (package elpv-dataset) are not installed; run: {INSTALL}")
        self.install = INSTALL


def open_elpv(size: int = 256) -> Splits:
    """The solar cells in their fixed split. MissingPackageError where the package is not installed."""
    root = _root()
    paths, probabilities, kinds = _read_labels(os.path.join(root, "labels.csv"))
    defective = probabilities >= 0.5
    whole = Dataset("elpv", CLASSES, defective, paths, partial(load_under, root, size), size=(size, size))
    whole.root = root
    strata = [f"{p:.2f} {kind}" for p, kind in zip(probabilities, kinds, strict=True)]
    at = stratified_split(strata, (VAL, TEST), seed=0, name="elpv")
    train, val, test = (whole.select(at[k], f"elpv {part}") for k, part in enumerate(("train", "val", "test")))
    description = (f"{ALL:,} electroluminescence photographs of solar cells (Buerhop-Lutz et al. 2018, Deitsch et al. "
                   f"2019): is the cell defective? Fixed split {len(train):,} train, {len(val)} val, {len(test)} test")
    return Splits(train, val, test, "elpv", description, "CC BY-NC-SA 4.0: not for commercial use, share alike")


def _root() -> str:
    """The package's data folder."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError()
    root = os.path.join(list(spec.submodule_search_locations)[0], "data")
    if not os.path.isfile(os.path.join(root, "labels.csv")):
        raise DataError(f"the package elpv-dataset has no {root}/labels.csv; reinstall it: {INSTALL}")
    return root


def _read_labels(path: str) -> tuple[list[str], np.ndarray, list[str]]:
    """Columns of labels.csv (separated by blanks): path, probability of a defect, kind of cell."""
    with open(path, encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip()]
    if len(rows) != ALL or any(len(row) != 3 for row in rows):
        raise DataError(f"{path} has {len(rows)} rows, expected {ALL} of path, probability and kind; install "
                        "elpv-dataset 1.0.0")
    paths, probabilities, kinds = zip(*sorted(rows), strict=True)
    return list(paths), np.array(probabilities, np.float64), list(kinds)
