"""Where everything of a diagram is placed, in inches from its upper left corner.

Stages follow each other from top to bottom along an axis; branches have lanes of their own, each as wide as its boxes
and their labels. Beside every row of boxes are the lines of a table, one for each box, in the order of the lanes. All
widths are those of the texts as they will be drawn, so texts cannot overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from minicnn.visualize.diagram.stages import IMAGE, Block, Box, Stage

MARGIN, GAP, LINE_HEIGHT, ARROW = 0.4, 0.16, 0.165, 0.26           # inches; ARROW: between rows of boxes
SIZE, SMALL, TITLE = 8.0, 7.0, 11.5                                # points: of the table, of labels, of the title
TALL, WIDE = 0.055, 0.021                 # inches: height for the root of the rows, width for that of the channels
SLANT, RISE = 0.34, 0.62                  # of a box's depth to its height; how much of it goes up
HEAD = ("layer", "", "output", "parameters", "multiply-adds")
RIGHT = (False, False, False, True, True)


@dataclass
class Placed:
    """A box: its front face (left, top, width, height), slant to the right; `left`: of each column."""

    box: Box
    axis: float
    lefts: list[float]
    top: float
    width: float
    height: float
    slant: float
    label_at: float

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def middle(self) -> float:
        return self.top + self.height / 2

    @property
    def ceiling(self) -> float:
        """Where an arrow that comes from above ends."""
        return self.top - RISE * self.slant

    def centres(self) -> list[float]:
        """Of the columns."""
        return [left + self.width / 2 for left in self.lefts]


@dataclass
class Layout:
    """boxes.   lines: [(x, y), ...], with an arrowhead where the flag is set.   rows: (y, cells) of the table, the head
    first.   identities: (x, y) of this word.   shades: (top, bottom, times) behind repeated stages.   apart: the two
    columns.   columns: x of those of the table."""

    boxes: list[Placed] = field(default_factory=list)
    lines: list[tuple[list[tuple[float, float]], bool]] = field(default_factory=list)
    rows: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    identities: list[tuple[float, float]] = field(default_factory=list)
    shades: list[tuple[float, float, int]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    apart: float = 0.0
    columns: list[float] = field(default_factory=list)


@cache
def text_width(text: str, points: float) -> float:
    """Inches of a text as matplotlib draws it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    return TextToPath().get_text_width_height_descent(text, FontProperties(size=points), ismath=False)[0] / 72


def place(stages: Sequence[Stage], top: float) -> Layout:
    """The layout of these stages below a heading of `top` inches."""
    blocks = [stage for stage in stages if isinstance(stage, Block)]
    boxes = [stage for stage in stages if isinstance(stage, Box)] + [block.join for block in blocks]
    layout = Layout(apart=_apart([*boxes, *(box for block in blocks for box in block.boxes())]))
    half = max((_span(block, layout.apart) / 2 for block in blocks), default=0)
    number = max(text_width(f"\N{MULTIPLICATION SIGN}{stage.times}", TITLE) for stage in stages)
    axis = MARGIN + 1.2 * number + max(half, *(_width(box, layout.apart) / 2 for box in boxes))
    after = max(half, *(_reach(box, layout.apart) for box in boxes))
    y, previous = top + LINE_HEIGHT * 1.6, None
    for stage in stages:
        begin = y
        if isinstance(stage, Block):
            y, previous = _place_block(layout, stage, axis, y, previous)
        else:
            y, previous = _place_row(layout, [(stage, axis)], y, [previous])
        if stage.times > 1:
            layout.shades.append((begin + 0.02 if isinstance(stage, Block) else begin, y, stage.times))
    _place_table(layout, axis + after + 0.35, top)
    layout.height = y + 0.1
    return layout


# ---- boxes
def _front(box: Box) -> tuple[float, float, float]:
    """Width of one column, height, slant."""
    channels, rows = box.shape[-1] / box.columns, box.shape[0] if len(box.shape) == 3 else 1
    height = max(TALL * rows**0.5, 0.07)
    if box.label == "+":
        return 0.2, 0.2, 0.0
    return max(WIDE * channels**0.5, 0.05), height, SLANT * height


def _apart(boxes: Sequence[Box]) -> float:
    """From the centre of one column to that of the other, the same for all boxes."""
    return max((_front(box)[0] + _front(box)[2] + GAP for box in boxes if box.columns > 1), default=0.0)


def _width(box: Box, apart: float) -> float:
    """Of all columns, without slant."""
    return _front(box)[0] + (box.columns - 1) * apart


def _reach(box: Box, apart: float) -> float:
    """From the axis to the right end of the label."""
    return _width(box, apart) / 2 + _front(box)[2] + 0.08 + (text_width(box.label, SMALL) if box.label != "+" else 0)


def _place_row(layout: Layout, boxes: Sequence[tuple[Box, float]], y: float, sources: Sequence[Placed | None],
               ) -> tuple[float, Placed]:
    """Boxes of one row, each at its axis and below its source; returns the row's end, and the last box."""
    apart = layout.apart
    above = max(RISE * _front(box)[2] for box, _ in boxes)
    room = max(above + max(_front(box)[1] for box, _ in boxes), LINE_HEIGHT * len(boxes))
    arrow = ARROW if any(sources) else 0.0
    middle = y + arrow + above + (room - above) / 2
    for (box, axis), source in zip(boxes, sources, strict=True):
        width, height, slant = _front(box)
        left = axis - _width(box, apart) / 2
        lefts = [left + column * apart for column in range(box.columns)]
        placed = Placed(box, axis, lefts, middle - height / 2, width, height, slant,
                        lefts[-1] + width + slant + 0.08)
        layout.boxes.append(placed)
        if source is not None:
            _connect(layout, source, placed)
    centre = middle if len(boxes) == 1 else y + arrow + room / 2
    for number, (box, _) in enumerate(boxes):
        layout.rows.append((centre + LINE_HEIGHT * (number - (len(boxes) - 1) / 2), _table_line(box)))
    return y + arrow + room, layout.boxes[-1]


def _connect(layout: Layout, source: Placed, target: Placed) -> None:
    """Arrows from each column to those that read it."""
    for i, start in enumerate(source.centres()):
        for j, end in enumerate(target.centres()):
            if i == j or target.box.mixes or len(source.lefts) != len(target.lefts):
                layout.lines.append(([(start, source.bottom + 0.03), (end, target.ceiling - 0.02)], True))


# ---- blocks
def _lane(branch: list[Box], apart: float) -> tuple[float, float]:
    """From the left end of a lane to its axis, and from there to its right end."""
    if not branch:
        return 0.05, 0.08 + text_width("identity", SMALL)
    return max(_width(box, apart) / 2 for box in branch), max(_reach(box, apart) for box in branch)


def _span(block: Block, apart: float) -> float:
    lanes = [_lane(branch, apart) for branch in block.branches]
    return sum(before + after for before, after in lanes) + 1.6 * GAP * (len(lanes) - 1)


def _place_block(layout: Layout, block: Block, axis: float, y: float, source: Placed) -> tuple[float, Placed]:
    """Lanes side by side; a line across above and below them."""
    x, axes = axis - _span(block, layout.apart) / 2, []
    for before, after in (_lane(branch, layout.apart) for branch in block.branches):
        axes.append(x + before)
        x += before + after + 1.6 * GAP
    fork = y + ARROW / 2
    layout.lines.append(([(axis, source.bottom + 0.03), (axis, fork)], False))
    layout.lines.append(([(min(axis, *axes), fork), (max(axis, *axes), fork)], False))
    y, ends = y + ARROW / 2, [fork] * len(axes)
    for depth in range(max(map(len, block.branches))):
        row = [(branch[depth], lane, k) for k, (branch, lane) in enumerate(zip(block.branches, axes, strict=True))
               if depth < len(branch)]
        y, _ = _place_row(layout, [(box, lane) for box, lane, _ in row], y + ARROW, [None] * len(row))
        for placed, (_, lane, k) in zip(layout.boxes[-len(row):], row, strict=True):
            layout.lines.append(([(lane, ends[k]), (lane, placed.ceiling - 0.02)], True))
            ends[k] = placed.bottom + 0.03
    join = y + 0.14
    for branch, lane, end in zip(block.branches, axes, ends, strict=True):
        layout.lines.append(([(lane, end), (lane, join)], False))
        if not branch:
            layout.identities.append((lane + 0.08, (end + join) / 2))
    layout.lines.append(([(min(axis, *axes), join), (max(axis, *axes), join)], False))
    y, last = _place_row(layout, [(block.join, axis)], join + 0.18, [None])
    layout.lines.append(([(axis, join), (axis, last.ceiling - 0.02)], True))
    return y, last


# ---- the table
def _table_line(box: Box) -> tuple[str, ...]:
    by = "\N{MULTIPLICATION SIGN}"
    return (box.name, "" if box.kind == IMAGE else box.what, by.join(map(str, box.shape)),
            f"{box.parameters:,}" if box.parameters else "", in_millions(box.macs) if box.macs else "")


def in_millions(macs: int) -> str:
    return f"{macs / 1e6:,.1f} M" if macs >= 5e4 else f"{macs / 1e6:.3f} M"


def _place_table(layout: Layout, left: float, top: float) -> None:
    """The x of each column, and the width of the whole; numbers end at theirs."""
    for column, heading in enumerate(HEAD):
        width = max(text_width(heading, SIZE), *(text_width(cells[column], SIZE) for _, cells in layout.rows))
        layout.columns.append(left + width if RIGHT[column] else left)
        left += width + 0.28
    layout.rows.insert(0, (top, HEAD))
    layout.width = left - 0.28 + MARGIN
