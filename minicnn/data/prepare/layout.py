"""Which files are training and which validation images: the same listing from every layout.

    ILSVRC2012_img_train.tar (a tar of one tar per class) and ILSVRC2012_img_val.tar (flat, see labels.py)
    train/<class>/...  val/<class>/...  [test/<class>/...]     val may be flat as well; in ILSVRC/Data/CLS-LOC/ (Kaggle)
    <class>/...                                                no split of its own: one part, "all"
    any of these inside one tar, or with a tar for a class or a part
    WebDataset's shards (webdataset.py)

The images of each part then get their classes (classes.py).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable

from minicnn.data.folder import FLAT_OR_PARTS, PARTS, find_parts
from minicnn.data.prepare.classes import KNOWN_LAYOUTS, TRAIN_TAR, Parts, Source, classify, is_image
from minicnn.data.prepare.files import File, LeftOut, expand, is_tar, plain_file, stem, walk
from minicnn.data.prepare.labels import EXPECTED, find_labels, is_label_file
from minicnn.data.prepare.webdataset import LISTS
from minicnn.errors import DataError

KAGGLE = "ILSVRC/Data/CLS-LOC/"
IN_NAME = {part: re.compile(rf"(.*[-_. ])?({'|'.join(names)})([-_. ].*)?\Z") for part, names in PARTS.items()}


def open_source(path: str | os.PathLike, scratch: str, labels: str | None = None,
                say: Callable[[str], None] = lambda text: None) -> Source:
    """List a set, whatever its layout. DataError when there is none, or when its parts do not fit together."""
    path = os.fspath(path)
    left_out = LeftOut()
    if os.path.isdir(path):
        files = list(walk(path, left_out=left_out))
    elif os.path.isfile(path) and is_tar(path):
        files = [plain_file(path), *_beside(path)]
    else:
        what = "is neither a folder nor a tar" if os.path.exists(path) else "does not exist"
        raise DataError(f"{path} {what}; {KNOWN_LAYOUTS}")
    lists = [file for file in files if is_label_file(file) or posixpath.basename(file.name) in LISTS]
    given = lists if labels is None else _given(labels)
    found = _Parts(path, scratch, say, left_out)
    parts = found.find([file for file in files if not is_label_file(file)])
    source = classify(path, parts, [*lists, *found.lists], found.tars,
                      lambda classes: find_labels(given, classes, scratch, given=labels is not None))
    source.notes[:0] = [*found.notes, *left_out.words()]
    return source


def _given(labels: str) -> list[File]:
    """The files that --labels names."""
    if not os.path.exists(labels):
        raise DataError(f"--labels {labels} does not exist; {EXPECTED}")
    return list(walk(labels)) if os.path.isdir(labels) else [plain_file(labels)]


def _beside(tar: str) -> Iterable[File]:
    """The files that belong to ILSVRC2012's training tar, in its folder: the validation tar, and lists of labels."""
    folder = os.path.dirname(os.path.abspath(tar))
    if stem(tar) != TRAIN_TAR:
        return
    for entry in sorted(os.listdir(folder)):
        whole = os.path.join(folder, entry)
        if os.path.isfile(whole) and (entry == "ILSVRC2012_img_val.tar" or is_label_file(plain_file(whole))):
            yield plain_file(whole)
        elif os.path.isdir(whole) and "devkit" in entry.lower():
            yield from walk(folder, entry)


class _Parts:
    """Finds the parts of a listing, from names only; nothing is read but the headers of tars."""

    def __init__(self, path: str, scratch: str, say: Callable[[str], None], left_out: LeftOut):
        self.path, self.scratch, self.say, self.left_out = path, scratch, say, left_out
        self.notes: list[str] = []
        self.lists: list[File] = []                    # of labels, found inside a tar
        self.tars: list[File] = []                     # that were opened

    def find(self, files: list[File]) -> Parts:
        """Part -> its files, named below the part; {"all": files} for a set without parts."""
        files = _strip(files, KAGGLE)
        folders = {file.name.split("/")[0] for file in files if "/" in file.name}
        if found := self._named(files, folders):
            if "train" not in found:
                raise DataError(f"{self.path} has {next(iter(found))} but no train; {FLAT_OR_PARTS}")
            return found
        tars = [file for file in files if is_tar(file.name) and "/" not in file.name]
        if tars and not (folders - {""}):
            return self._in_tars(tars)
        if len(folders) == 1 and not any("/" not in file.name and is_image(file) for file in files):
            inner = _strip(files, f"{folders.pop()}/")
            if any("/" in file.name for file in inner):                # else a single class, which `classify` refuses
                return self.find(inner)
        return {"all": files}

    def _in_tars(self, tars: list[File]) -> Parts:
        """The parts in one tar; several tars, whose names say nothing, are one set."""
        files = self._open(tars)
        if len(tars) == 1:
            files = _strip(files, f"{stem(tars[0].name)}/")
        self.lists += [file for file in files if is_label_file(file)]
        return self.find(files) if len(tars) == 1 else {"all": files}

    def _named(self, files: list[File], folders: set[str]) -> Parts:
        """Parts by folders of their names; else by tars with train, val or test in their names."""
        found, with_folders, with_images = {}, set(), set()
        for file in files:
            top, *inner = file.name.split("/")
            if len(inner) > 1:
                with_folders.add(top)
            elif inner and is_image(file):
                with_images.add(top)
        of_part = find_parts(self.path, folders, with_folders, with_images)
        for part in PARTS:
            folder = of_part.get(part)
            tars = [file for file in files if "/" not in file.name and is_tar(file.name)
                    and IN_NAME[part].match(stem(file.name).lower())]
            if folder is not None:
                found[part] = _strip(files, f"{folder}/")
                if tars:
                    self.notes.append(f"{folder}/ is used, and {tars[0].name} beside it is not")
            elif tars:
                found[part] = self._open(tars)
                if len(tars) == 1:
                    found[part] = self._unwrap(_strip(found[part], f"{stem(tars[0].name)}/"), part)
            else:
                continue
            if any(is_tar(file.name) for file in found[part]):
                found[part] = self._open(found[part])
        beside = sorted(top for top in folders - set(of_part.values()) if top and "devkit" not in top.lower())
        if of_part and beside:
            self.notes.append(f"not used, since beside {of_part.get('train', 'the tars')}: {', '.join(beside[:10])}")
        return found

    def _open(self, files: list[File]) -> list[File]:
        """The files, with the members of each tar in its place."""
        tars = [file for file in files if is_tar(file.name)]
        self.tars += tars
        size = sum(tar.size for tar in tars)
        self.say(f"reading the headers of {len(tars):,} tar{'s' * (len(tars) != 1)}, {size:,} bytes")
        return expand(files, self.scratch, self.left_out)

    def _unwrap(self, files: list[File], part: str) -> list[File]:
        """Without the folder that some tars have around everything: train/ in the tar of the training set."""
        tops = {file.name.split("/")[0] for file in files}
        if len(tops) == 1 and next(iter(tops)).lower() in PARTS[part]:
            return [file for file in _strip(files, f"{tops.pop()}/") if file.name]
        return files


def _strip(files: list[File], prefix: str) -> list[File]:
    """The files below a prefix, named without it. All files, unchanged, where none is below Kaggle's prefix."""
    below = [file._replace(name=file.name[len(prefix):]) for file in files
             if file.name.startswith(prefix) and file.name != prefix]
    return below if below or prefix != KAGGLE else files
