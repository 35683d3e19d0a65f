"""Class-folder trees: every folder is a class, every image below it belongs to that class.

    DIR/train/<class>/...  DIR/val/<class>/...  [DIR/test/<class>/...]    as ImageNet is usually laid out
    DIR/<class>/...                                                       no split: split 80 / 10 / 10 by class

With train/ and test/ but no val/, a tenth of train/ is held out for validation. Class indices follow the sorted folder
names (ImageNet's wnids); files are listed by name, hidden ones left out, and links to folders followed.
"""

from __future__ import annotations

import os
from functools import partial

from minicnn.data.dataset import Dataset, Splits
from minicnn.data.images import is_image_file, load_under
from minicnn.data.split import hold_out_val, split_in_three
from minicnn.errors import DataError

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LAYOUT = "expected DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg, or DIR/<class>/*.jpg"

Listing = dict[str, list[str]]                     # class -> paths of its images, relative to the root


def open_folder(root: str | os.PathLike, seed: int = 0, size: int = 256) -> Splits:
    """The sets in a class-folder tree. Nothing is decoded yet. DataError when the tree is not one."""
    root = os.fspath(root)
    if not os.path.isdir(root):
        what = "is a file, not a folder: unpack it first" if os.path.exists(root) else "does not exist"
        raise DataError(f"{root} {what}; {LAYOUT}")
    folders = _folders(root)
    parts = {part: next((f for f in folders if f.lower() in names), None) for part, names in PARTS.items()}
    name = os.path.basename(os.path.abspath(root))
    if parts["train"] is None:
        stray = [folder for folder in parts.values() if folder]
        if stray:
            raise DataError(f"{root} has {stray[0]}/ but no train/; {LAYOUT}")
        return _split_flat(root, name, _list_classes(root, ""), seed, size)
    return _open_parts(root, name, parts, seed, size)


def _split_flat(root: str, name: str, listing: Listing, seed: int, size: int) -> Splits:
    """A tree without a split, split into train, val and test."""
    whole = _dataset(root, name, listing, size)
    train, val, test, how = split_in_three(whole, seed)
    return Splits(train, val, test, name, _describe(root, listing, how), "the folder's own")


def _open_parts(root: str, name: str, parts: dict[str, str | None], seed: int, size: int) -> Splits:
    """A tree with train/ and val/ or test/ or both."""
    listing = _list_classes(root, parts["train"])
    train, notes = _dataset(root, f"{name}/train", listing, size), []
    sets, first_id = {"val": None, "test": None}, len(train)
    for part in sets:
        if parts[part] is None:
            continue
        if part == "test" and not _folders(os.path.join(root, parts[part])):
            notes.append(f"{parts[part]}/ has no class folders and is not used")
            continue
        other = _list_classes(root, parts[part])
        _same_classes(root, parts["train"], listing, parts[part], other)
        sets[part] = _dataset(root, f"{name}/{part}", other, size, first_id)
        first_id += len(sets[part])
    if sets["val"] is None:
        train, sets["val"], how = hold_out_val(train, name, seed)
        notes.append(how)
    counts = ", ".join(f"{len(part)} {kind}" for kind, part in (("train", train), *sets.items()) if part is not None)
    return Splits(train, sets["val"], sets["test"], name, _describe(root, listing, "; ".join([counts, *notes])),
                  "the folder's own")


def _describe(root: str, listing: Listing, how: str) -> str:
    return f"images of {len(listing)} classes ({_some(list(listing))}) in {root}: {how}"


def _dataset(root: str, name: str, listing: Listing, size: int, first_id: int = 0) -> Dataset:
    items = [path for paths in listing.values() for path in paths]
    labels = [k for k, paths in enumerate(listing.values()) for _ in paths]
    dataset = Dataset(name, list(listing), labels, items, partial(load_under, root, size), size=(size, size),
                      ids=range(first_id, first_id + len(items)))
    dataset.root = root
    return dataset


def _list_classes(root: str, part: str) -> Listing:
    """The classes below root/part and their images, sorted; DataError unless there are at least two with images."""
    where = os.path.join(root, part) if part else root
    listing = {folder: _list_images(root, os.path.join(part, folder), set()) for folder in _folders(where)}
    listing = {folder: paths for folder, paths in listing.items() if paths}
    if len(listing) > 1:
        for folder, paths in listing.items():
            _check_class(root, os.path.join(part, folder), paths)
        return listing
    if len(listing) == 1:
        [only] = listing
        inside = os.path.join(where, only)
        hint = f"; did you mean {inside}?" if _folders(inside) else ""
        raise DataError(f"{where} has only one class folder with images, {only}/; a classifier needs two{hint}")
    if loose := _image_files(where):
        raise DataError(f"{where} has {len(loose)} images but no class folders; sort them into one per class: {LAYOUT}")
    raise DataError(f"{where} holds no images; {LAYOUT}")


def _check_class(root: str, folder: str, paths: list[str]) -> None:
    """DataError where a folder is no class but holds a data set: no images of its own, and a train/ or several folders.

    One folder inside is taken for a class with one more level, as in Tiny ImageNet (<class>/images/).
    """
    if os.path.dirname(paths[0]) == folder:                     # a folder's own images come first
        return
    inner = sorted({os.path.relpath(path, folder).split(os.sep)[0] for path in paths})
    parts = [name for name in inner if any(name.lower() in names for names in PARTS.values())]
    if not parts and len(inner) == 1:
        return
    inside, named = os.path.join(root, folder), _some(parts or inner)
    raise DataError(f"{inside} would be a class, but has no images of its own, only folders ({named}): name {inside} "
                    "if it is the data set; if it is one class, move its images into it")


def _some(names: list[str], most: int = 10) -> str:
    """The first of the names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _list_images(root: str, folder: str, seen: set[str]) -> list[str]:
    """Paths, relative to root, of all images below root/folder, in sorted order."""
    real = os.path.realpath(os.path.join(root, folder))
    if real in seen:                               # a link back up the tree
        return []
    seen.add(real)
    paths = [os.path.join(folder, name) for name in _image_files(real)]
    for inner in _folders(real):
        paths += _list_images(root, os.path.join(folder, inner), seen)
    return paths


def _folders(where: str) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones and a Mac archive's are left out."""
    with os.scandir(where) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith((".", "__MACOSX")))


def _image_files(where: str) -> list[str]:
    """Names of the image files in a folder, sorted; hidden ones are left out."""
    with os.scandir(where) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file() and is_image_file(e.path))


def _same_classes(root: str, part: str, listing: Listing, other_part: str, other: Listing) -> None:
    for this, here, that, there in ((part, listing, other_part, other), (other_part, other, part, listing)):
        alone = [name for name in here if name not in there]
        if alone:
            named = ", ".join(alone[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
            raise DataError(f"{root}: {this}/ and {that}/ must hold the same classes, but only {this}/ has {named}; "
                            f"add images to {that}/ or remove the folder from {this}/")
