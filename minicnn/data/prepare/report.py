"""The files of a set that are damaged, unusual or not used: a line for each in report.tsv, and a count of each kind.

    left out     truncated, unreadable                 their rows stay empty
    used         CMYK, grey                            converted to RGB
                 misnamed                              of another format than its name's ending
    not used     unused                                no image, or an image without a class
                 empty                                 a class folder without images
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable

from PIL import Image

from minicnn.data.images import Picture
from minicnn.errors import printable
from minicnn.system.files import atomic

LEFT_OUT, ODD, UNUSED = ("truncated", "unreadable"), ("CMYK", "grey", "misnamed"), ("unused", "empty")
FORMAT_OF = Image.registered_extensions()          # ending -> format; images.py has loaded all formats
SAME = {"MPO": "JPEG", "DIB": "BMP"}               # containers of the same pixels


Row = tuple[str, str, str]                         # kind, part/class/name, explanation


def oddities(picture: Picture, name: str) -> list[tuple[str, str]]:
    """(kind, explanation) of what is unusual about an image that can be used."""
    found = []
    if picture.mode in ("CMYK", "YCCK"):
        found.append(("CMYK", "four inks, converted to RGB"))
    if picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I"):
        found.append(("grey", "one channel, repeated"))
    said = FORMAT_OF.get(posixpath.splitext(name)[1].lower())
    if said is not None and SAME.get(said, said) != SAME.get(picture.format, picture.format):
        found.append(("misnamed", f"is {picture.format}"))
    return found


def damage(reason: str, data: bytes) -> str:
    """The kind of an image that cannot be read. A JPEG without an end marker was cut short, whatever the error says."""
    cut = "truncated" in reason.lower() or (data.startswith(b"\xff\xd8\xff") and b"\xff\xd9" not in data[-1024:])
    return "truncated" if cut else "unreadable"


def write_report(path: str, rows: Iterable[Row]) -> None:
    """One line a file: kind, file, explanation; separated by tabs. Control characters in a name are escaped."""
    with atomic(path, "w", errors="surrogateescape") as file:
        file.write("kind\tfile\twhat\n")
        file.writelines("\t".join(map(printable, row)) + "\n" for row in rows)


def in_words(rows: Iterable[Row]) -> str:
    """Such as "left out: 1 truncated; used, converted where needed: 22 CMYK"; "" when there is nothing to report."""
    counts = Counter(kind for kind, _, _ in rows)
    groups = (("left out", LEFT_OUT), ("used, converted where needed", ODD), ("not used", UNUSED))
    said = [(title, ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind])) for title, kinds in groups]
    return "; ".join(f"{title}: {text}" for title, text in said if text)
