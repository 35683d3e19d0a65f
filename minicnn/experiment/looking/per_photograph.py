"""One picture for each photograph: projections, class scores, occlusion, activation maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicnn.experiment.looking.asked import RULES, Looking
from minicnn.visualize.features.maps import activation_maps
from minicnn.visualize.features.randomised import sanity
from minicnn.visualize.gradients import ClassMap, grad_cam, integrated_gradients, saliency
from minicnn.visualize.occlusion import occlusion
from minicnn.visualize.panels import Panel, class_colours, on_grey
from minicnn.visualize.projection import project
from minicnn.visualize.views import in_pixels

CLASS_MAPS = {"saliency": saliency, "integrated": integrated_gradients, "gradcam": grad_cam}
Row = tuple[list[Panel], str]


def projection(looking: Looking, crop, x) -> list[Row]:
    """The crop, what reached its pixels, and both within the receptive field."""
    options, rule = looking.options, RULES[looking.options.what]
    found = project(looking.net, x[None], looking.layer, options.unit, rule=rule, lrn=options.lrn)
    top, left, bottom, right = box = found.boxes[0]
    pixels = in_pixels(looking.pipeline, found.pixels[0])
    drawn, panels = on_grey(pixels), [Panel(crop, "what the network takes", box=box)]
    panels.append(Panel(drawn, "projection: grey is 0", box=box))
    if (bottom - top, right - left) != crop.shape[:2]:
        panels += [Panel(drawn[top:bottom, left:right], "receptive field: projection"),
                   Panel(crop[top:bottom, left:right], "receptive field")]
    rows = [(panels, found.captions[0] + " Contrast: the 99.9th percentile of its absolute values is full.")]
    if options.sanity:
        position = found.positions[0] if len(looking.shape) == 3 else None

        def again(net) -> np.ndarray:
            same = project(net, x[None], looking.layer, int(found.units[0]), position, rule=rule, lrn=options.lrn)
            return in_pixels(looking.pipeline, same.pixels[0])[top:bottom, left:right]

        rows.append(_sanity(looking, looking.layer, again, lambda pixels, words: Panel(on_grey(pixels), words),
                            " within the receptive field"))
    return rows


def class_map(looking: Looking, crop, x) -> list[Row]:
    """The crop and the map of a class score."""
    how, options = CLASS_MAPS[looking.options.what], {}
    if how is grad_cam:
        options["layer"] = looking.layer
    found: ClassMap = how(looking.net, x[None], looking.label(), **options)
    values, label, signed = found.maps[0], int(found.labels[0]), how is integrated_gradients
    peak = _peak(values)
    panels = [Panel(crop, f"what the network takes; class {looking.named(label, found.scores[0])}")]
    if how is grad_cam:
        panels.append(Panel(crop, "the map over it, enlarged bilinearly", heat=values, limits=(0.0, peak)))
    words = f"red raises the score, blue lowers it; full: {peak:.2g}" if signed else f"0 dark, {peak:.2g} bright"
    panels.append(Panel(None, words, heat=values, limits=(-peak if signed else 0.0, peak)))
    why = "asked for" if looking.options.label else "the most probable"
    caption = f"Class {looking.classes[label]!r}, {why}. {found.caption[0].upper()}{found.caption[1:]}. " \
              "Full colour: the 99.5th percentile."
    rows = [(panels, caption)]
    if looking.options.sanity:
        rows.append(_sanity(looking, looking.net.output, lambda net: how(net, x[None], label, **options).maps[0],
                            lambda values, words: Panel(None, words, heat=values, limits=(
                                -_peak(values) if signed else 0.0, _peak(values)))))
    return rows


def _peak(values: np.ndarray) -> float:
    return float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0


def _sanity(looking: Looking, top: str, picture: Callable, panel: Callable, where: str = "") -> Row:
    """The same picture with newly initialised layers.   panel(picture, label) -> Panel.   where: for the caption."""
    stages = sanity(looking.net, picture, top)
    panels = [panel(stage.picture, f"{stage.words}: similarity {stage.similarity:.2f}")
              for stage in stages]
    return panels, (f"Sanity check (Adebayo et al., 2018): the same{where} of the network in which these layers are "
                    "newly initialised, from the top down; each on its own scale. Similarity: "
                    "Spearman's rank correlation of its absolute values with those above. A picture that stays as it "
                    "was does not depend on what these layers have learned.")


def covered(looking: Looking, crop, x) -> list[Row]:
    """The three maps of Figure 7."""
    options, (fill, words) = looking.options, looking.fill()
    found = occlusion(looking.net, x, looking.label(), layer=looking.layer, unit=options.unit, square=options.square,
                      step=options.step, fill=fill, fill_words=words)
    colours, legend = class_colours(found.best, looking.classes)
    low, high = float(found.activation.min()), float(found.activation.max())
    box, place = (0, 0, options.square, options.square), (found.place, crop.shape[:2])
    panels = [Panel(crop, "what the network takes; frame: the square's first position", box=box),
              Panel(None, f"map: {low:.3g} dark, {high:.3g} bright", heat=found.activation, limits=(low, high),
                    place=place),
              Panel(None, f"probability of {looking.classes[found.label]}: {found.probability.min():.2f} dark, "
                    f"{found.probability.max():.2f} bright", heat=found.probability,
                    limits=(float(found.probability.min()), float(found.probability.max())), place=place),
              Panel(colours, "most probable class", legend=legend, place=place)]
    return [(panels, found.caption)]


def maps(looking: Looking, crop, x) -> list[Row]:
    """All maps of a layer."""
    from matplotlib import colormaps

    found = activation_maps(looking.net, x, looking.layer)
    low, high = min(0.0, float(found.maps.min())), float(found.maps.max()) or 1.0
    colours = colormaps["viridis"]((found.maps - low) / (high - low))[..., :3]                  # (H, W, K, 3)
    panels = [Panel(crop, "what the network takes"),
              Panel(list(np.moveaxis(colours, 2, 0)), f"{looking.layer}: {low:.3g} dark, {high:.3g} bright")]
    return [(panels, found.caption)]
