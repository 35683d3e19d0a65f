"""The classes of the images of a listing: from class folders, from WebDataset's labels, or from a list of labels.

Images are sorted into the canonical order, by class and then by name, and the classes are numbered in sorted order.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from minicnn.data.images import EXTENSIONS, begins_an_image
from minicnn.data.prepare.files import File, is_tar, stem
from minicnn.data.prepare.labels import EXPECTED, WNID, Labels, is_label_file, read_words
from minicnn.data.prepare.webdataset import LISTS, class_names, is_json_webdataset, is_webdataset, samples
from minicnn.errors import DataError

KNOWN_LAYOUTS = ("expected ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, train/<class>/* and val/<class>/*, "
                 "<class>/*, a tar of one of these, or WebDataset shards")
TRAIN_TAR = "ILSVRC2012_img_train"
Parts = dict[str, list[File]]                      # "train", "val", "test" -> its files; {"all": files} without parts


class Photo(NamedTuple):
    label: str                 # name of its class
    name: str                  # below the class
    file: File


@dataclass
class Source:
    """A set as it was found: its images in canonical order by part, and remarks on it."""

    kind: str
    parts: dict[str, list[Photo]]                                    # of "train", "val", "test"; or of "all"
    classes: list[str]
    ilsvrc: bool                                                     # whether it seems to be ILSVRC2012
    notes: list[str] = field(default_factory=list)
    unused: list[tuple[str, str, str]] = field(default_factory=list)     # (part, name, reason)
    empty: list[tuple[str, str]] = field(default_factory=list)           # (part, class)
    words: dict[str, str] = field(default_factory=dict)


def classify(path: str, parts: Parts, lists: list[File], tars: list[File],
             read_labels: Callable[[list[str]], Labels | None]) -> Source:
    """The set, with the classes of its images. DataError where these are not known, or differ between the parts.

    path: of the set.   lists: label files beside the parts.   tars: those that the files are members of.
    read_labels: the labels of a flat val, given the sorted classes of the training set; None where there are none.
    """
    everything = [file for files in parts.values() for file in files]
    original = any(stem(tar.name) == TRAIN_TAR for tar in tars)
    found = _Classes(path, read_labels)
    if is_webdataset(everything) or (tars and is_json_webdataset(everything)):
        kind, photos = "WebDataset shards", found.webdataset(parts, [*lists, *everything])
    else:
        kind = "ILSVRC2012's original tars" if original else "class folders"
        photos = found.class_folders(parts)
    photos = {part: sorted(of_part, key=_canonical) for part, of_part in photos.items() if of_part or part != "test"}
    classes = _common_classes(path, photos)
    wnids = all(WNID.match(name) for name in classes)
    return Source(kind, photos, classes, original or (wnids and len(classes) == 1000), found.notes, found.unused,
                  found.empty, found.words or read_words(lists))


class _Classes:
    """Sorts the files of each part into images of a class, and remarks on the others."""

    def __init__(self, path: str, read_labels: Callable[[list[str]], Labels | None]):
        self.path, self.read_labels = path, read_labels
        self.notes: list[str] = []
        self.unused: list[tuple[str, str, str]] = []
        self.empty: list[tuple[str, str]] = []
        self.words: dict[str, str] = {}

    def webdataset(self, parts: Parts, beside: list[File]) -> dict[str, list[Photo]]:
        found = {}
        for part, files in parts.items():
            found[part], alone = samples(files)
            self.unused += [(part, file.name, "has no label beside it") for file in alone]
        names = class_names(found, beside)
        for label in {label for labelled in found.values() for label, _ in labelled} - names.keys():
            raise DataError(f"{self.path}: no class name for the label {label}")
        return {part: [Photo(names[label], posixpath.basename(image.name), image) for label, image in labelled]
                for part, labelled in found.items()}

    def class_folders(self, parts: Parts) -> dict[str, list[Photo]]:
        found, classes = {}, []
        for part, files in parts.items():
            by_class, loose = _by_folder(files)
            photos = [Photo(label, file.name, file) for label, inside in by_class.items()
                      for file in self._images(part, inside, label)]
            loose = self._images(part, loose, "")
            classes = classes or sorted(by_class)
            if photos and loose:
                raise DataError(f"{self.path}: {part} has class folders and {len(loose):,} images beside them, such as "
                                f"{loose[0].name}; move those into their classes or out of the way")
            if photos:
                self.empty += [(part, label) for label in sorted(by_class.keys() - {photo.label for photo in photos})]
            found[part] = photos or self._flat(part, loose, classes)
        return found

    def _flat(self, part: str, images: list[File], classes: list[str]) -> list[Photo]:
        """A part without class folders: val, whose classes are in a list of labels, or an unlabelled test part."""
        if part == "test":                             # ILSVRC2012's test images come without labels
            if images:
                self.notes.append(f"test has {len(images):,} images without classes and is not used")
            return []
        if not images:
            raise DataError(f"{self.path}: {part} holds no images; {KNOWN_LAYOUTS}")
        if part != "val":
            raise DataError(f"{self.path}: {part} has {len(images):,} images but no class folders; {KNOWN_LAYOUTS}")
        labels = self.read_labels(classes)
        if labels is None:
            raise DataError(f"{self.path}: val has {len(images):,} images in one folder, and there is no list of their "
                            f"classes; {EXPECTED}, beside it or given with --labels")
        given = labels.apply([file.name for file in images])
        without = [file.name for file, label in zip(images, given, strict=True) if label is None]
        if without:
            raise DataError(f"{labels.source} has no class for {len(without):,} of {len(images):,} validation images, "
                            f"such as {without[0]}; use the list that belongs to these images")
        self.notes.append(f"classes of the validation images: {labels.source}")
        self.words = labels.words
        return [Photo(label, file.name, file) for label, file in zip(given, images, strict=True)]

    def _images(self, part: str, files: list[File], label: str) -> list[File]:
        """The images among these files; the others are noted as unused."""
        images = []
        for file in files:
            if file.name.endswith("/") or not file.name:
                continue
            if is_image(file):
                images.append(file)
            elif not is_label_file(file) and posixpath.basename(file.name) not in LISTS:
                self.unused.append((part, posixpath.join(label, file.name), "is no image by its name or first bytes"))
        return images


def _by_folder(files: list[File]) -> tuple[dict[str, list[File]], list[File]]:
    """Files by their top folder, named below it, empty folders included; and the files in none."""
    by_folder, loose = defaultdict(list), []
    for file in files:
        folder, slash, name = file.name.partition("/")
        if slash:
            by_folder[folder].append(file._replace(name=name))
        else:
            loose.append(file)
    return by_folder, loose


def _common_classes(path: str, photos: dict[str, list[Photo]]) -> list[str]:
    """The sorted classes of the first part. DataError when these are fewer than two, or another part's are others."""
    main, *others = photos
    classes = _classes_of(photos[main])
    if len(classes) < 2:
        raise DataError(f"{path}: {len(photos[main]):,} images of {len(classes)} classes in {main}, and a classifier "
                        f"needs two classes; {KNOWN_LAYOUTS}")
    for part in others:
        theirs = _classes_of(photos[part])
        for here, there, has in ((classes, theirs, main), (theirs, classes, part)):
            alone = sorted(set(here) - set(there))
            if alone and theirs:
                named = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
                raise DataError(f"{path}: {main} and {part} must hold the same classes, but only {has} has images of "
                                f"{named}; add the missing images, or remove the class")
    return classes


def _classes_of(photos: list[Photo]) -> list[str]:
    return sorted({photo.label for photo in photos})


def _canonical(photo: Photo) -> tuple:
    """By class and name; the ending last, so that renaming .JPEG to .jpg changes no order."""
    start, ending = posixpath.splitext(photo.name)
    return photo.label, start, ending, photo.file.where, photo.file.offset


def is_image(file: File) -> bool:
    """Whether a file is an image by its name's ending, or, where that is not a known one, by its first bytes."""
    ending = posixpath.splitext(file.name)[1].lower()
    if ending in EXTENSIONS:
        return True
    if file.name.endswith("/") or is_tar(file.name):
        return False
    return begins_an_image(file._replace(size=min(12, file.size)).read())
