"""`minicnn look`: pictures of what a trained network responds to, for photographs or over a set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.experiment.looking import per_photograph, per_set
from minicnn.experiment.looking.asked import RULES, Looking, held_out
from minicnn.experiment.looking.per_photograph import CLASS_MAPS
from minicnn.experiment.options import device_of
from minicnn.experiment.trained import load_trained, quick_device, samples_for
from minicnn.train.runs.run_dir import BEST, find_checkpoint, folder_for
from minicnn.visualize.panels import draw_panels

TITLES = {"deconv": "Deconvnet", "guided": "Guided backpropagation", "gradient": "Activation times gradient",
          "saliency": "Saliency", "integrated": "Integrated gradients", "gradcam": "Grad-CAM",
          "occlusion": "Occlusion", "maps": "Activation maps"}
WITHOUT_LAYER = ("saliency", "integrated")
EACH: dict[str, Callable] = {**dict.fromkeys(RULES, per_photograph.projection),
                             **dict.fromkeys(CLASS_MAPS, per_photograph.class_map),
                             "occlusion": per_photograph.covered, "maps": per_photograph.maps}
TOGETHER: dict[str, Callable] = {"top": per_set.strongest, "evolution": per_set.through_training,
                                 "invariance": per_set.transformations, "correspondence": per_set.same_part,
                                 "neighbours": per_set.most_similar, "columns": per_set.columns}
WHATS = (*EACH, *TOGETHER)


def look(options: argparse.Namespace) -> list[Path]:
    """Make the pictures that are asked for; returns their paths. MinicnnError before the first for a mistake."""
    if options.sanity and options.what not in (*RULES, *CLASS_MAPS):
        raise ConfigError(f"--sanity is for pictures by gradients: {', '.join((*RULES, *CLASS_MAPS))}; leave it out "
                          f"for {options.what}")
    checkpoint = find_checkpoint(options.out, options.checkpoint, BEST)
    if not options.data:
        samples = samples_for(checkpoint)
        options.files = options.files or (samples if options.what in TOGETHER else samples[:1])
    device = device_of(options, options.device or "auto")
    net, pipeline, meta = load_trained(checkpoint, quick_device(checkpoint, device))
    in_proportion(options, net.input_shape[0])
    looking = Looking(options, checkpoint, net, pipeline, meta["classes"])
    folder = Path(options.to) if options.to else folder_for(checkpoint) / "look"
    if options.what in TOGETHER:
        return TOGETHER[options.what](looking, folder)
    paths = []
    for file, crop, x in looking.photographs():
        rows = EACH[options.what](looking, crop, x)
        unit = "" if options.unit is None or options.what in (*CLASS_MAPS, "maps") else f"-{options.unit}"
        layer = "" if options.what in WITHOUT_LAYER else f"-{looking.layer}{unit}"
        paths.append(draw_panels(rows, folder / f"{Path(file).stem}-{options.what}{layer}.png",
                                 f"{TITLES[options.what]}: {Path(file).name}"))
    return paths


def in_proportion(options: argparse.Namespace, side: int) -> None:
    """Occlusion by a square of 48 pixels in steps of 8, where nothing else is asked for; less for small images."""
    for name, pixels in (("square", 48), ("step", 8)):
        if getattr(options, name) is None:
            setattr(options, name, min(pixels, -(-pixels * side // 224)))


__all__ = ["RULES", "WHATS", "held_out", "look"]
