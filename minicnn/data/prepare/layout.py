"""Which files are training and which validation images, and their classes: the same listing from every layout.

    ILSVRC2012_img_train.tar (a tar of one tar per class) and ILSVRC2012_img_val.tar (flat, see labels.py)
    train/<class>/...  val/<class>/...  [test/<class>/...]     val may be flat as well; in ILSVRC/Data/CLS-LOC/ (Kaggle)
    <class>/...                                                no split of its own: one part, "all"
    any of these inside one tar, or with a tar for a class or a part
    WebDataset's shards (webdataset.py)

Images are put into the canonical order, by class and then by name, and the classes are numbered in sorted order.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from minicnn.data.folder import PARTS
from minicnn.data.images import EXTENSIONS, begins_an_image
from minicnn.data.prepare.files import File, expand, is_tar, plain_file, stem, walk
from minicnn.data.prepare.labels import EXPECTED, WNID, find_labels, is_label_file, read_words
from minicnn.data.prepare.webdataset import LISTS, class_names, is_json_webdataset, is_webdataset, samples
from minicnn.errors import DataError

KNOWN_LAYOUTS = ("expected ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, train/<class>/* and val/<class>/*, "
                 "<class>/*, a tar of one of these, or WebDataset shards")
KAGGLE = "ILSVRC/Data/CLS-LOC/"
IN_NAME = {part: re.compile(rf"(.*[-_. ])?({'|'.join(names)})([-_. ].*)?\Z") for part, names in PARTS.items()}


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


def open_source(path: str | os.PathLike, scratch: str, labels: str | None = None,
                say: Callable[[str], None] = lambda text: None) -> Source:
    """List a set, whatever its layout. DataError when there is none, or when its parts do not fit together."""
    path = os.fspath(path)
    if os.path.isdir(path):
        files = list(walk(path))
    elif os.path.isfile(path) and is_tar(path):
        files = [plain_file(path), *_beside(path)]
    else:
        what = "is neither a folder nor a tar" if os.path.exists(path) else "does not exist"
        raise DataError(f"{path} {what}; {KNOWN_LAYOUTS}")
    found = _Finder(path, scratch, say)
    lists = [file for file in files if is_label_file(file) or posixpath.basename(file.name) in LISTS]
    chosen = found.parts([file for file in files if not is_label_file(file)])
    if labels is not None:
        if not os.path.exists(labels):
            raise DataError(f"--labels {labels} does not exist; {EXPECTED}")
        named = list(walk(labels)) if os.path.isdir(labels) else [plain_file(labels)]
        found.read_labels = lambda classes: find_labels(named, classes, scratch, given=True)
    else:
        found.read_labels = lambda classes: find_labels(lists, classes, scratch)
    return found.source(chosen, [*lists, *found.lists])


def _beside(tar: str) -> Iterable[File]:
    """The files that belong to ILSVRC2012's training tar, in its folder: the validation tar, and lists of labels."""
    folder = os.path.dirname(os.path.abspath(tar))
    if stem(tar) != "ILSVRC2012_img_train":
        return
    for entry in sorted(os.listdir(folder)):
        whole = os.path.join(folder, entry)
        if os.path.isfile(whole) and (entry == "ILSVRC2012_img_val.tar" or is_label_file(plain_file(whole))):
            yield plain_file(whole)
        elif os.path.isdir(whole) and "devkit" in entry.lower():
            yield from walk(folder, entry)


class _Finder:
    """Finds the parts and classes of a listing, from names only; nothing is read but the headers of tars."""

    def __init__(self, path: str, scratch: str, say: Callable[[str], None]):
        self.path, self.scratch, self.say = path, scratch, say
        self.notes: list[str] = []
        self.unused: list[tuple[str, str, str]] = []
        self.empty: list[tuple[str, str]] = []
        self.lists: list[File] = []                    # of labels, found inside a tar
        self.words: dict[str, str] = {}
        self.from_tars = self.original = False
        self.read_labels = lambda classes: None

    # ---- which part
    def parts(self, files: list[File]) -> dict[str, list[File]]:
        """Part -> its files, named below the part; {"all": files} for a set without parts."""
        files = _strip(files, KAGGLE)
        while True:
            tops = {file.name.split("/")[0] for file in files}
            folders = {file.name.split("/")[0] for file in files if "/" in file.name}
            found = self._named_parts(files, tops, folders)
            if found:
                if "train" not in found:
                    raise DataError(f"{self.path} has {next(iter(found))} but no train; {KNOWN_LAYOUTS}")
                return found
            tars = [file for file in files if is_tar(file.name) and "/" not in file.name]
            if tars and not (folders - {""}):
                files = self._open(tars)
                if len(tars) == 1:
                    files = _strip(files, f"{stem(tars[0].name)}/")
                self.lists += [file for file in files if is_label_file(file)]
                if len(tars) > 1:
                    return {"all": files}
                continue
            [only] = folders if len(folders) == 1 else [None]
            if only is None or any("/" not in file.name and _is_image(file) for file in files):
                return {"all": files}
            inner = _strip(files, f"{only}/")
            if not any("/" in file.name for file in inner):            # a single class, which `source` refuses
                return {"all": files}
            files = inner

    def _named_parts(self, files: list[File], tops: set[str], folders: set[str]) -> dict[str, list[File]]:
        """Parts by folders of their names; else by tars with train, val or test in their names."""
        found = {}
        for part, names in PARTS.items():
            folder = next((top for top in sorted(folders) if top.lower() in names), None)
            tars = [file for file in files if "/" not in file.name and is_tar(file.name)
                    and IN_NAME[part].match(stem(file.name).lower())]
            if folder is not None:
                found[part] = _strip(files, f"{folder}/")
                if tars:
                    self.notes.append(f"{folder}/ is used, and {tars[0].name} beside it is not")
            elif tars:
                self.original |= any(stem(tar.name) == "ILSVRC2012_img_train" for tar in tars)
                found[part] = self._open(tars)
                if len(tars) == 1:
                    found[part] = self._unwrap(_strip(found[part], f"{stem(tars[0].name)}/"), part)
            else:
                continue
            if any(is_tar(file.name) for file in found[part]):
                found[part] = self._open(found[part])
        return found

    def _open(self, files: list[File]) -> list[File]:
        self.from_tars = True
        big = [file for file in files if is_tar(file.name)]
        self.say(f"reading the headers of {len(big):,} tar{'s' * (len(big) != 1)}, {sum(t.size for t in big):,} bytes")
        return list(expand(files, self.scratch))

    def _unwrap(self, files: list[File], part: str) -> list[File]:
        """Without the folder that some tars have around everything: train/ in the tar of the training set."""
        tops = {file.name.split("/")[0] for file in files}
        if len(tops) == 1 and next(iter(tops)).lower() in PARTS[part]:
            return [file for file in _strip(files, f"{tops.pop()}/") if file.name]
        return files

    # ---- which class
    def source(self, parts: dict[str, list[File]], lists: list[File]) -> Source:
        """The set, with the classes of its images, and these in order."""
        everything = [file for files in parts.values() for file in files]
        if is_webdataset(everything) or (self.from_tars and is_json_webdataset(everything)):
            kind, photos = "WebDataset shards", self._webdataset(parts, [*lists, *everything])
        else:
            kind = "ILSVRC2012's original tars" if self.original else "class folders"
            photos = self._class_folders(parts)
        photos = {part: sorted(found, key=_canonical) for part, found in photos.items() if found or part != "test"}
        main = next(iter(photos))
        classes = sorted({photo.label for photo in photos[main]})
        if len(classes) < 2:
            raise DataError(f"{self.path}: {len(photos[main]):,} images of {len(classes)} classes in {main}, and a "
                            f"classifier needs two classes; {KNOWN_LAYOUTS}")
        for part, found in photos.items():
            self._same_classes(classes, sorted({photo.label for photo in found}), main, part)
        wnids = all(WNID.match(name) for name in classes)
        return Source(kind, photos, classes, self.original or (wnids and len(classes) == 1000), self.notes,
                      self.unused, self.empty, self.words or read_words(lists))

    def _webdataset(self, parts: dict[str, list[File]], beside: list[File]) -> dict[str, list[Photo]]:
        found = {}
        for part, files in parts.items():
            found[part], alone = samples(files)
            self.unused += [(part, file.name, "has no label beside it") for file in alone]
        names = class_names(found, beside)
        for label in {label for labelled in found.values() for label, _ in labelled} - names.keys():
            raise DataError(f"{self.path}: no class name for the label {label}")
        return {part: [Photo(names[label], posixpath.basename(image.name), image) for label, image in labelled]
                for part, labelled in found.items()}

    def _class_folders(self, parts: dict[str, list[File]]) -> dict[str, list[Photo]]:
        found, named = {}, []
        for part, files in parts.items():
            by_class, loose = defaultdict(list), []
            for file in files:
                label, _, name = file.name.partition("/")
                if not name and not file.name.endswith("/"):
                    loose.append(file)
                else:
                    by_class[label].append(file._replace(name=name))
            photos = [Photo(label, file.name, file) for label, inside in by_class.items()
                      for file in self._images(part, inside, label)]
            empty = sorted(by_class.keys() - {photo.label for photo in photos})
            named = named or sorted(by_class)
            loose = self._images(part, loose, "")
            if loose and photos:
                raise DataError(f"{self.path}: {part} has class folders and {len(loose):,} images beside them, such as "
                                f"{loose[0].name}; move those into their classes or out of the way")
            if loose and part == "test":               # ILSVRC2012's test images come without labels
                self.notes.append(f"test has {len(loose):,} images without classes and is not used")
                loose = []
            self.empty += [(part, label) for label in empty if photos]
            found[part] = photos or self._labelled(part, loose, named)
        return found

    def _labelled(self, part: str, loose: list[File], classes: list[str]) -> list[Photo]:
        """A flat part, its classes from a list of labels."""
        if not loose and part == "test":
            return []
        if not loose:
            raise DataError(f"{self.path}: {part} holds no images; {KNOWN_LAYOUTS}")
        if part != "val":
            raise DataError(f"{self.path}: {part} has {len(loose):,} images but no class folders; {KNOWN_LAYOUTS}")
        labels = self.read_labels(classes)
        if labels is None:
            raise DataError(f"{self.path}: val has {len(loose):,} images in one folder, and there is no list of their "
                            f"classes; {EXPECTED}, beside it or given with --labels")
        given = labels.apply([file.name for file in loose])
        without = [file.name for file, label in zip(loose, given, strict=True) if label is None]
        if without:
            raise DataError(f"{labels.source} has no class for {len(without):,} of {len(loose):,} validation images, "
                            f"such as {without[0]}; use the list that belongs to these images")
        self.notes.append(f"classes of the validation images: {labels.source}")
        self.words = labels.words
        return [Photo(label, file.name, file) for label, file in zip(given, loose, strict=True)]

    def _images(self, part: str, files: list[File], label: str) -> list[File]:
        """The images among these files; others are noted."""
        images = []
        for file in files:
            if file.name.endswith("/") or not file.name:
                continue
            if _is_image(file):
                images.append(file)
            elif not is_label_file(file) and posixpath.basename(file.name) not in LISTS:
                self.unused.append((part, posixpath.join(label, file.name), "is no image by its name or first bytes"))
        return images

    def _same_classes(self, classes: list[str], others: list[str], main: str, part: str) -> None:
        for here, there, has in ((classes, others, main), (others, classes, part)):
            alone = sorted(set(here) - set(there))
            if alone and others:
                named = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
                raise DataError(f"{self.path}: {main} and {part} must hold the same classes, but only {has} has "
                                f"images of {named}; add the missing images, or remove the class")


def _canonical(photo: Photo) -> tuple:
    """By class and name; the ending last, so that renaming .JPEG to .jpg changes no order."""
    start, ending = posixpath.splitext(photo.name)
    return photo.label, start, ending, photo.file.where, photo.file.offset


def _strip(files: list[File], prefix: str) -> list[File]:
    """The files below a prefix, named without it. All files, unchanged, where none is below Kaggle's prefix."""
    below = [file._replace(name=file.name[len(prefix):]) for file in files
             if file.name.startswith(prefix) and file.name != prefix]
    return below if below or prefix != KAGGLE else files


def _is_image(file: File) -> bool:
    """Whether a file is an image by its name's ending, or, where that is not a known one, by its first bytes."""
    ending = posixpath.splitext(file.name)[1].lower()
    if ending in EXTENSIONS:
        return True
    if file.name.endswith("/") or is_tar(file.name):
        return False
    return begins_an_image(file._replace(size=min(12, file.size)).read())
