"""WebDataset's shards: tars in which an image and its class are two members with one key.

    n01440764_10026.jpg  n01440764_10026.cls        the class as a number, or as a name
    n01440764_10026.jpg  n01440764_10026.json       the same under "label", "cls" or "class"

A key ends at the first dot of a file's name. Numbers are mapped to class names by a list (classes.txt, one a line, or
ImageNet's own LOC_synset_mapping.txt); without one by the wnids that the keys of training images begin with; else the
numbers are the class names.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable

from minicnn.data.images import EXTENSIONS
from minicnn.data.prepare.files import File
from minicnn.errors import DataError

LISTS = ("classes.txt", "LOC_synset_mapping.txt", "synset_words.txt")
OF_KEY = re.compile(r"(n\d{8})_")


def is_webdataset(files: Iterable[File]) -> bool:
    """Whether labels lie beside the images."""
    return any(file.name.endswith(".cls") for file in files)


def is_json_webdataset(files: list[File]) -> bool:
    """Whether every image has a JSON file of its name; for tars only."""
    images, others = _by_key(files)
    return bool(images) and all(key in others for key in images)


def samples(files: Iterable[File]) -> tuple[list[tuple[str, File]], list[File]]:
    """(label as written, image) of each sample; and images without a label."""
    images, others = _by_key(files)
    labelled = [(_label(others[key]), image) for key, image in images.items() if key in others]
    return labelled, [image for key, image in images.items() if key not in others]


def class_names(labels: dict[str, list[tuple[str, File]]], beside: Iterable[File]) -> dict[str, str]:
    """Label as written -> class name, over all parts of a set: {"train": samples, "val": samples}."""
    written = {label for part in labels.values() for label, _ in part}
    if not all(label.isdigit() for label in written):
        return {label: label for label in written}
    highest = max(map(int, written))
    lists = {posixpath.basename(file.name): file for file in beside}
    for name in LISTS:
        if name in lists:
            lines = [line.strip() for line in lists[name].text().splitlines()
                     if line.strip()]
            names = [line.split()[0] if name != "classes.txt" else line for line in lines]
            if highest >= len(names):
                raise DataError(f"{lists[name].where} lists {len(names)} classes, but a label is {highest}; complete "
                                "the list or remove it")
            return {label: names[int(label)] for label in written}
    wnids: dict[str, set[str]] = {label: set() for label in written}
    for label, image in labels.get("train", next(iter(labels.values()))):
        found = OF_KEY.match(posixpath.basename(image.name))
        wnids[label].add(found[1] if found else "")
    single = {label: next(iter(found)) for label, found in wnids.items() if len(found) == 1}
    if len(single) == len(written) == len(set(single.values())) and "" not in single.values():
        return single
    return {label: f"{int(label):0{len(str(highest))}d}" for label in written}


def _by_key(files: Iterable[File]) -> tuple[dict[str, File], dict[str, File]]:
    """Images and label files by key; the key includes the tar."""
    images, labels = {}, {}
    for file in files:
        folder, base = posixpath.split(file.name)
        stem, _, ending = base.partition(".")
        key, ending = f"{file.where}/{folder}/{stem}", f".{ending.lower()}"
        if ending in EXTENSIONS:
            images[key] = file
        elif ending == ".cls" or (ending == ".json" and key not in labels):
            labels[key] = file
    return images, labels


def _label(file: File) -> str:
    """The label in a label file, as text."""
    text = file.text().strip()
    if file.name.endswith(".cls"):
        if not text:
            raise DataError(f"{file.where}: {file.name} is empty; expected a class")
        return text
    try:
        fields = json.loads(text)
        return str(next(fields[name] for name in ("label", "cls", "class") if name in fields))
    except (ValueError, TypeError, StopIteration) as error:
        raise DataError(f"{file.where}: {file.name} has no label, cls or class; expected a WebDataset with .cls "
                        "files, or with the class in its JSON") from error
