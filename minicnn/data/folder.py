"""Class-folder trees: every folder is a class, every image below it belongs to that class.

    DIR/train/<class>/...  DIR/val/<class>/...  [DIR/test/<class>/...]    as ImageNet is usually laid out
    DIR/<class>/...                                                       no split: split 80 / 10 / 10 by class

With train/ and test/ but no val/, a tenth of train/ is held out for validation. Class indices follow the sorted folder
names (ImageNet's wnids); files are listed by name, as by prepare/files.py: links to folders are followed, but not up
the tree, and what minicnn has written is no data. What is left out is counted in the description of the set.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial

from minicnn.data.dataset import Dataset, Splits
from minicnn.data.images import is_image_file, load_under
from minicnn.data.prepare.files import LeftOut, tree
from minicnn.data.split import hold_out_val, split_in_three
from minicnn.errors import DataError

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LAYOUT = "expected DIR/train/<class>/*.jpg and DIR/val/<class>/*.jpg, or DIR/<class>/*.jpg"
FLAT_OR_PARTS = (f"{LAYOUT}; put the class folders under train/, or rename a class that is called train, val or test")

Listing = dict[str, list[str]]                     # class -> paths of its images, relative to the root


def open_folder(root: str | os.PathLike, seed: int = 0, size: int = 256, hold_out: bool = True,
                divide: bool = True) -> Splits:
    """The sets in a class-folder tree. Nothing is decoded yet. DataError when the tree is not one.

    hold_out: False where all of train/ is to be learned from; without val/, test/ takes its place.
    divide: False where all images of a tree without a split are to be tested; then they are train and val, too.
    """
    root = os.fspath(root)
    if not os.path.isdir(root):
        what = "is a file, not a folder: unpack it first" if os.path.exists(root) else "does not exist"
        raise DataError(f"{root} {what}; {LAYOUT}")
    left_out = LeftOut()
    parts = _find_parts(root)
    name = os.path.basename(os.path.abspath(root))
    if not parts:
        return _split_flat(root, name, _list_classes(root, "", left_out), seed if divide else None, size, left_out)
    if "train" not in parts:
        raise DataError(f"{root} has {next(iter(parts.values()))}/ but no train/; {FLAT_OR_PARTS}")
    return _open_parts(root, name, parts, seed, size, left_out, hold_out)


def _find_parts(root: str) -> dict[str, str]:
    """Part -> its folder; {} for a folder of classes."""
    folders = _folders(root)
    named = [folder for folder in folders if _part(folder)]
    if not named:
        return {}
    with_folders = {folder for folder in named if _folders(os.path.join(root, folder))}
    with_images = set() if with_folders else {f for f in folders if _image_files(os.path.join(root, f))}
    return find_parts(root, folders, with_folders, with_images)


def find_parts(root: str, folders: Collection[str], with_folders: Collection[str],
               with_images: Collection[str]) -> dict[str, str]:
    """Part -> its folder, of the folders of a set; {} where they are classes, one of which may be called train.

    with_folders, with_images: those that hold folders, and images of their own. The parts hold folders, one a class;
    only val and test may be flat, beside a train that is not. DataError where that is not clear.
    """
    parts = {part: found for part in PARTS if (found := min((f for f in folders if _part(f) == part), default=None))}
    others = {folder for folder in with_images if not _part(folder)}
    if any(folder in with_folders for folder in parts.values()) or not others:
        return parts
    if parts and "train" not in parts and len(others) > 1:
        raise DataError(f"{root} has {next(iter(parts.values()))}/ but no train/; {FLAT_OR_PARTS}")
    return {}


def _part(folder: str) -> str | None:
    """The part that a folder is by its name."""
    return next((part for part, names in PARTS.items() if folder.lower() in names), None)


def _split_flat(root: str, name: str, listing: Listing, seed: int | None, size: int, left_out: LeftOut) -> Splits:
    """A tree without a split, split into train, val and test; or, without a seed, all of it as each of them."""
    whole = _dataset(root, name, listing, size)
    train, val, test, how = (whole, whole, whole, "all of them") if seed is None else split_in_three(whole, seed)
    return Splits(train, val, test, name, _describe(root, listing, [how, *left_out.words()]), "the folder's own",
                  divided=True)


def _open_parts(root: str, name: str, parts: dict[str, str], seed: int, size: int, left_out: LeftOut,
                hold_out: bool) -> Splits:
    """A tree with train/ and val/ or test/ or both."""
    listing = _list_classes(root, parts["train"], left_out)
    train, notes = _dataset(root, f"{name}/train", listing, size), []
    sets, first_id = {"val": None, "test": None}, len(train)
    for part in sets:
        if part not in parts:
            continue
        if part == "test" and not _folders(os.path.join(root, parts[part])):
            notes.append(f"{parts[part]}/ has no class folders and is not used")
            continue
        other = _list_classes(root, parts[part], left_out, beside=listing)
        _same_classes(root, parts["train"], listing, parts[part], other)
        sets[part] = _dataset(root, f"{name}/{part}", other, size, first_id)
        first_id += len(sets[part])
    if sets["val"] is None and not hold_out:
        if sets["test"] is None:
            raise DataError(f"{root} has neither val/ nor test/ with class folders, and nothing is to be held out of "
                            f"train/; {LAYOUT}")
        sets["val"] = sets["test"]
        notes.append("no val/: validated on test/")
    if sets["val"] is None:
        train, sets["val"], how = hold_out_val(train, name, seed)
        notes.append(how)
    if beside := [folder for folder in _folders(root) if folder not in parts.values()]:
        notes.append(f"not used, since beside train/: {_some([f'{folder}/' for folder in beside])}")
    counts = ", ".join(f"{len(part)} {kind}" for kind, part in (("train", train), *sets.items()) if part is not None)
    return Splits(train, sets["val"], sets["test"], name, _describe(root, listing, [counts, *notes, *left_out.words()]),
                  "the folder's own")


def _describe(root: str, listing: Listing, how: list[str]) -> str:
    return f"images of {len(listing)} classes ({_some(list(listing))}) in {root}: {'; '.join(how)}"


def _dataset(root: str, name: str, listing: Listing, size: int, first_id: int = 0) -> Dataset:
    items = [path for paths in listing.values() for path in paths]
    labels = [k for k, paths in enumerate(listing.values()) for _ in paths]
    dataset = Dataset(name, list(listing), labels, items, partial(load_under, root, size), size=(size, size),
                      ids=range(first_id, first_id + len(items)))
    dataset.root = root
    return dataset


def _list_classes(root: str, part: str, left_out: LeftOut, beside: Listing | None = None) -> Listing:
    """The classes below root/part and their images, sorted; DataError unless there are at least two with images.

    beside: the classes of train; then a part with images of a single class is returned, too.
    """
    where = os.path.join(root, part) if part else root
    listing, loose = _list_images(root, part, left_out)
    empty = [folder for folder, paths in listing.items() if not paths]
    listing = {folder: paths for folder, paths in listing.items() if paths}
    if len(listing) > 1 or (listing and beside):
        for folder, paths in listing.items():
            _check_class(root, os.path.join(part, folder), paths)
        left_out.empty += [os.path.join(part, folder) for folder in empty]
        left_out.loose += loose
        return listing
    unused = "".join(f"; {line}" for line in left_out.words())
    if len(listing) == 1:
        [only] = listing
        inside = os.path.join(where, only)
        hint = f"; did you mean {inside}?" if _folders(inside) else ""
        raise DataError(f"{where} has only one class folder with images, {only}/; a classifier needs two{hint}{unused}")
    if loose:
        raise DataError(f"{where} has {len(loose)} images but no class folders; sort them into one per class: {LAYOUT}")
    raise DataError(f"{where} holds no images; {LAYOUT}{unused}")


def _list_images(root: str, part: str, left_out: LeftOut) -> tuple[Listing, list[str]]:
    """Folder below root/part -> the paths, relative to root, of all images in it; and of images in none."""
    listing, loose, start = {}, [], len(part) + 1 if part else 0
    for path, entry in tree(root, left_out, part):
        folder, slash, _ = path[start:].partition("/")
        if entry is None:
            if folder:
                listing.setdefault(folder, [])
        elif is_image_file(entry.path):
            (listing[folder] if slash else loose).append(path)
        else:
            left_out.others[os.path.splitext(path)[1].lower()] += 1
    for paths in listing.values():
        paths.sort(key=_files_first)
    return listing, loose


def _files_first(path: str) -> tuple:
    """Sorts by name, a folder's own files before those in its folders."""
    *folders, name = path.split("/")
    return *((1, folder) for folder in folders), (0, name)


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
