"""The parity report of an import: where every tensor of a file went, and what was changed on the way (`net.source`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minicnn.data.preprocess import Preprocess


@dataclass
class Moved:
    """A tensor of the file, and what became of it: `words`, such as "OIHW -> RSCK"; `target`, our array."""

    name: str
    shape: tuple[int, ...]
    words: str
    target: str


@dataclass
class Report:
    """What `read` found out.

    format: "onnx", "torch", ...   about: a line on the file.   moved: the tensors.   dropped: nodes that minicnn does
    not need.   notes: what was assumed, changed or ignored.   unmatched: tensors of the file that were not used.
    preprocess: as the file or its family says, None where it is unknown; `preprocess_source` says whence.
    mean_image: (H, W, 3), RGB, where the file has one.   classes: their names, where the file has them.
    values: node of minicnn -> value of the source graph, for comparisons; `flipped` those whose features are ordered
    otherwise.   compared: the lines of a comparison.
    """

    format: str
    about: str = ""
    moved: list[Moved] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    preprocess: Preprocess | None = None
    preprocess_source: str = ""
    mean_image: np.ndarray | None = None
    classes: list[str] | None = None
    values: dict[str, object] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)
    model: str = ""

    def note(self, line: str) -> None:
        """Keep a line, once."""
        if line not in self.notes:
            self.notes.append(line)

    def lines(self) -> list[str]:
        """The report, for people."""
        width = max([len(moved.name) for moved in self.moved], default=0)
        sizes = ["x".join(map(str, moved.shape)) for moved in self.moved]
        long, words = max(map(len, sizes), default=0), max([len(moved.words) for moved in self.moved], default=0)
        lines = [f"{self.format:9s} {self.about}"]
        lines += [f"tensor    {moved.name:{width}s}  {size:{long}s}  {moved.words:{words}s}  {moved.target}"
                  for moved, size in zip(self.moved, sizes, strict=True)]
        if self.dropped:
            lines.append(f"dropped   {', '.join(self.dropped)}")
        lines.append(f"unmatched in the file: {_some(self.unmatched)}")
        lines += [f"note      {note}" for note in self.notes]
        lines.append(f"input     {self._input()}")
        return lines + self.compared

    def _input(self) -> str:
        if self.preprocess is None:
            return "preprocessing unknown, assumed RGB in 0..255 minus 0; name the mean: --mean b,g,r or FILE"
        p = self.preprocess
        mean = "the mean image" if p.mean == "image" else _channels(p.mean) if p.mean else "0"
        std = f", divided by {_channels(p.std)}" if p.std else ""
        return (f"{p.order.upper()} in 0..{p.range} minus {mean}{std}; {p.resize} side to {p.size}, crop {p.crop} "
                f"({self.preprocess_source})")

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _channels(values) -> str:
    return " ".join(f"{value:g}" for value in values)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", ... {len(names)} in all" if len(names) > 8 else "") if names else "none"
