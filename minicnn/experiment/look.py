"""`minicnn look`: pictures of what a trained network responds to, for photographs or over a set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from minicnn.errors import ConfigError
from minicnn.experiment.looking import per_photograph, per_set
from minicnn.experiment.looking.asked import RULES, Looking, held_out
from minicnn.experiment.looking.per_photograph import CLASS_MAPS
from minicnn.experiment.trained import load_trained
from minicnn.train.runs.run_dir import BEST, find_checkpoint
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
    net, pipeline, meta = load_trained(checkpoint, options.device or "auto")
    looking = Looking(options, checkpoint, net, pipeline, meta["classes"])
    folder = Path(options.to) if options.to else checkpoint.parent / "look"
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


__all__ = ["RULES", "WHATS", "held_out", "look"]
