"""Pictures of several photographs, of a set, or of the weights alone: one file for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minicnn.errors import ConfigError
from minicnn.experiment.looking.asked import RULES, Looking
from minicnn.train.runs.run_dir import WEIGHTS, kept_weights
from minicnn.visualize.features.colours import colour_split
from minicnn.visualize.features.correspondence import correspondence
from minicnn.visualize.features.evolution import evolution, some_epochs
from minicnn.visualize.features.invariance import draw_invariance, invariance
from minicnn.visualize.features.layers import first_layer
from minicnn.visualize.features.neighbours import nearest
from minicnn.visualize.filters import kernel_colours
from minicnn.visualize.panels import Panel, draw_panels, on_grey
from minicnn.visualize.top import top_images, top_patches
from minicnn.visualize.units import Box, name_of
from minicnn.visualize.views import views

ROWS = 16               # units in a picture; of more there are several, so that each can be opened


def strongest(looking: Looking, folder: Path) -> list[Path]:
    """Figure 2 for one unit, or for the units whose largest activations in the set are the largest."""
    options, net = looking.options, looking.net
    dataset = looking.named_set() or looking.held_out()
    top = top_images(net, looking.pipeline, dataset, looking.layer, None if options.unit is None else [options.unit])
    order = np.argsort(-top.values[:, 0], kind="stable")[:options.maps]

    def row(unit: int) -> tuple[list[Panel], str]:
        found = top_patches(net, looking.pipeline, dataset, top, unit, rule=RULES[options.rule], lrn=options.lrn)
        name = name_of(looking.layer, unit, looking.shape)
        return ([Panel([on_grey(pixels) for pixels in found.projections], f"{name}: projections"),
                 Panel(found.patches, "the patches")], found.caption)

    which = f"{looking.layer}-{options.unit if options.unit is not None else 'strongest'}"
    units, title = top.units[order].tolist(), f"{looking.layer}: the strongest of {dataset.name}"
    parts = [units[first:first + ROWS] for first in range(0, len(units), ROWS)]
    names = [f"top-{which}{f'-{number}' if len(parts) > 1 else ''}.png" for number in range(1, len(parts) + 1)]
    return [draw_panels([row(unit) for unit in part], folder / name, title)
            for part, name in zip(parts, names, strict=True)]


def through_training(looking: Looking, folder: Path) -> list[Path]:
    """Figure 4: two rows of panels for each unit, a column for each epoch."""
    options, run_dir = looking.options, looking.checkpoint.absolute().parent
    run_dir = run_dir.parent if run_dir.name == WEIGHTS else run_dir
    kept = kept_weights(run_dir)
    if not kept:
        raise ConfigError(f"{run_dir} has kept no weights, and evolution shows how features change with them; train "
                          "with --keep-every EPOCHS")
    dataset = looking.named_set() or looking.training()
    found = evolution(looking.net, looking.pipeline, {epoch: kept[epoch] for epoch in some_epochs(list(kept))}, dataset,
                      looking.layer, None if options.unit is None else [options.unit], count=options.maps,
                      rule=RULES[options.rule], lrn=options.lrn)
    rows = []
    for k, unit in enumerate(found.units.tolist()):
        rows.append(([Panel(on_grey(images[k]), f"epoch {epoch}") for epoch, images in
                      zip(found.epochs, found.projections, strict=True)], ""))
        rows.append(([Panel(images[k], f"{value:.3g}") for images, value in
                      zip(found.patches, found.values[:, k], strict=True)],
                     f"{name_of(looking.layer, unit, looking.shape)}, above"))
    rows[-1] = (rows[-1][0], f"{rows[-1][1]}. {found.caption}")
    which = f"{looking.layer}-{options.unit if options.unit is not None else 'strongest'}"
    return [draw_panels(rows, folder / f"evolution-{which}.png", f"{looking.layer} through training")]


def transformations(looking: Looking, folder: Path) -> list[Path]:
    """Figure 5."""
    shown, (fill, words) = looking.photographs(), looking.fill()
    labels = [looking.true_label(file, x) for file, _, x in shown]
    layers = None if looking.options.layer is None else _first_and(looking)
    found = invariance(looking.net, np.stack([x for *_, x in shown]), [label for label, _ in labels], layers=layers,
                       fill=fill, fill_words=words)
    names = [f"{Path(file).name}: {looking.classes[label]} ({why})"
             for (file, *_), (label, why) in zip(shown, labels, strict=True)]
    return [draw_invariance(found, names, folder / f"invariance-{found.layers[1]}.png",
                            "Invariance to translation, scale and rotation")]


def _first_and(looking: Looking) -> tuple[str, str]:
    return first_layer(looking.net), looking.layer


def same_part(looking: Looking, folder: Path) -> list[Path]:
    """Table 1: the photographs with what is covered, and the numbers below."""
    shown, (fill, words) = looking.photographs(), looking.fill()
    boxes = _boxes(looking.options, len(shown))
    found = correspondence(looking.net, np.stack([x for *_, x in shown]), boxes,
                           layers=looking.options.layer and [looking.layer], fill=fill, fill_words=words)
    panels = [Panel(crop, Path(file).name, box=box) for (file, crop, _), box in zip(shown, found.boxes, strict=True)]
    numbers = [f"{layer}: these parts {mean:.3f} \N{PLUS-MINUS SIGN} {spread:.3f}, parts at random "
               f"{found.random[layer][0]:.3f} \N{PLUS-MINUS SIGN} {found.random[layer][1]:.3f}."
               for layer, (mean, spread) in found.part.items()]
    most = 5
    rows = [(panels[k:k + most], "") for k in range(0, len(panels), most)]
    rows[-1] = (rows[-1][0], "Mean H of " + " ".join(numbers) + " " + found.caption)
    return [draw_panels(rows, folder / "correspondence.png", "Correspondence: the framed part of each photograph")]


def _boxes(options, count: int) -> list[Box]:
    """Those of --box: one for all photographs, or one for each."""
    if not options.box:
        raise ConfigError("--what correspondence covers the same part of each photograph; name it by --box "
                          "TOP,LEFT,HEIGHT,WIDTH in pixels of what the network takes, once for all photographs or "
                          "once for each")
    boxes = []
    for words in options.box:
        numbers = words.split(",")
        if len(numbers) != 4 or not all(number.strip().isdigit() for number in numbers):
            raise ConfigError(f"--box {words!r}: expected TOP,LEFT,HEIGHT,WIDTH in pixels, such as 40,60,30,30")
        top, left, height, width = map(int, numbers)
        boxes.append((top, left, top + height, left + width))
    if len(boxes) not in (1, count):
        raise ConfigError(f"--box was given {len(boxes)} times for {count} photographs; expected once for all of them, "
                          "or once for each, in their order")
    return boxes * count if len(boxes) == 1 else boxes


def most_similar(looking: Looking, folder: Path) -> list[Path]:
    """Figure 4 (right) of the AlexNet paper: a row for each photograph."""
    shown, dataset = looking.photographs(), looking.training()
    found = nearest(looking.net, looking.pipeline, np.stack([x for *_, x in shown]), dataset, looking.options.layer)
    rows = []
    for (file, crop, _), distances, images in zip(shown, found.distances, found.images, strict=True):
        crops, _ = views(looking.pipeline, dataset.select(images))
        panels = [Panel(crop, Path(file).name)]
        panels += [Panel(image, f"{dataset.classes[label]}, {distance:.3g}") for image, label, distance in
                   zip(crops, dataset.labels[images], distances, strict=True)]
        rows.append((panels, ""))
    rows[-1] = (rows[-1][0], f"Left: the photograph. {found.caption}")
    return [draw_panels(rows, folder / f"neighbours-{found.layer}.png", f"Nearest neighbours by {found.layer}")]


def columns(looking: Looking, folder: Path) -> list[Path]:
    """Figure 3 of the AlexNet paper: the kernels of each column, the most colourful first."""
    found = colour_split(looking.net)
    kernels = kernel_colours(looking.net.ops.to_host(looking.net.params[f"{found.layer}.w"].data))
    half, panels = found.shares.shape[1], []
    for column, shares in enumerate(found.shares):
        order = np.argsort(-shares, kind="stable")
        panels.append(Panel(list(kernels[column * half + order]), f"column {column + 1}: colour {shares.mean():.3f} on "
                            f"average; from {shares.max():.2f} to {shares.min():.2f}"))
    return [draw_panels([(panels, found.caption + " Within each column the most colourful kernels are first; each is "
                          "drawn on its own scale, 0 grey.")], folder / f"columns-{found.layer}.png",
                        f"Colour and grey in the two columns: {found.layer}")]
