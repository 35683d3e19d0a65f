"""From `minicnn report RUN` to the file: what is computed, in which order."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from minicnn.errors import ConfigError, MinicnnError, one_line, rounded
from minicnn.experiment.say import say
from minicnn.report.curves import curves
from minicnn.report.filters import Filters, filters
from minicnn.report.held_out import HeldOut, Missing, bars, confusion, held_out, shown
from minicnn.report.machine import memory_plan, timeline
from minicnn.report.overview import differences, overview
from minicnn.report.page import Words, need_libraries, render
from minicnn.report.pictures import Picture, mosaic, picture
from minicnn.report.run import Run, read_run
from minicnn.report.seen import Seen, deconvnets, occlusions, rules_used, strongest
from minicnn.system.files import write_text
from minicnn.train.runs.run_dir import check_writable, folder_for

NAME = "report.html"


def report(options: argparse.Namespace) -> Path:
    """Write the report; returns its path. MinicnnError before any work for a mistake in the options."""
    need_libraries()
    words, out = Words(options.language), options.out and Path(options.out)
    if out and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise ConfigError(f"--out {out}: expected the name of a file that ends in .html; the folder of all runs is "
                          "--runs")
    if options.images is not None and options.images < 1:
        raise ConfigError(f"--images must be at least 1, got {options.images}")
    run = read_run(options)
    out = out or folder_for(run.checkpoint) / NAME
    check_writable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, render(options.language, gather(run, options, words)),
               errors="backslashreplace")               # a folder's name may be no text
    return out


def gather(run: Run, options: argparse.Namespace, words: Words) -> dict[str, Any]:
    """What the templates show; a section that cannot be made is Missing."""
    say("run", f"{run.title}{' on ' * bool(run.data)}{run.data}: {run.checkpoint}")
    held = held_out(run, options)
    if isinstance(held, Missing):
        say("no images", held.reason)
    found = {"run": run, "version": _version(), "about": overview(run), "differs": differences(run),
             "curves": curves(run), "held": held, "held_missing": held if isinstance(held, Missing) else None,
             "filters": attempt("filters", lambda: _filters(run, words)),
             **_of_images(run, held, words)}
    say("time line", "of a training step, which is run on its own")
    found["memory"] = attempt("memory", lambda: memory_plan(run))
    return found | {"timeline": attempt("time line", lambda: timeline(run))}


def attempt(label: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; or Missing, with a line, where the network or the data do not allow it."""
    try:
        return work()
    except (MinicnnError, OSError) as error:
        say(label, one_line(error))
        return Missing(one_line(error))


def _version() -> str:
    try:
        return version("minicnn")
    except PackageNotFoundError:                        # used in place, without having been installed
        return ""


def _filters(run: Run, words: Words) -> dict | None:
    found: Filters | None = filters(run)
    if found is None:
        return None
    R, S, C, K = found.shape
    alt = {"layer": found.layer, "count": K, "size": f"{R}×{S}×{C}"}
    frames = [{"epoch": frame.epoch, "moved": frame.moved,
               "picture": picture(frame.pixels, words("filters.alt", epoch=rounded(frame.epoch), **alt), sharp=True)}
              for frame in found.frames]
    change = None if found.change is None else picture(found.change, words("filters.alt_change", **alt), sharp=True)
    return {**alt, "frames": frames, "change": change, "damaged": found.damaged}


def _of_images(run: Run, held: HeldOut | Missing, words: Words) -> dict[str, Any]:
    """The sections that need photographs."""
    names = ("photographs", "confusion", "covered", "strongest")
    if isinstance(held, Missing):
        return dict.fromkeys(names, held)
    indices = shown(held)
    say("pictures", f"deconvnet and occlusion of {len(indices)} photographs, and the strongest images of some maps")
    seen = attempt("deconvnet", lambda: deconvnets(run, held, indices))
    if isinstance(seen, Missing):
        return dict.fromkeys(names, seen) | {"confusion": confusion(held, run.classes)}
    return {"photographs": _photographs(run, held, indices, seen, words), "how": _how(run, words),
            "confusion": confusion(held, run.classes),
            "covered": attempt("occlusion", lambda: _covered(run, held, indices, seen, words)),
            "strongest": attempt("top", lambda: _strongest(run, held, words))}


def _photographs(run: Run, held: HeldOut, indices: np.ndarray, seen: Seen, words: Words) -> list[dict]:
    """Of each photograph: its classes with their probabilities, and its deconvnet."""
    found = []
    for number, image in enumerate(indices.tolist(), 1):
        label, guess = int(held.found.labels[image]), int(held.guesses[image])
        names = {"number": number, "true": run.classes[label], "guess": run.classes[guess]}
        found.append({**names, "wrong": label != guess, "photograph": picture(
            seen.crops[number - 1], words("predictions.alt", **names)),
            "bars": [{"name": run.classes[k], "share": share, "is_true": k == label} for k, share in bars(held, image)],
            "deconvnet": _deconvnet(seen, number, names, words)})
    return found


def _deconvnet(seen: Seen, number: int, names: dict, words: Words) -> dict:
    """The photograph, the projection, and both within the receptive field, where that is not the whole image."""
    n, found = number - 1, seen.found
    crop, drawn, box = seen.crops[n], seen.drawn[n], found.boxes[n]
    top, left, bottom, right = box
    how = {"layer": seen.layer, "unit": int(found.units[n]), "units": seen.shape[-1], "value": f"{found.values[n]:.4g}",
           "row": int(found.positions[n][0]), "column": int(found.positions[n][1]), **names}
    part = (bottom - top, right - left) != crop.shape[:2]
    pictures = [("framed", picture(crop, words("deconvnet.alt_framed" if part else "deconvnet.alt", **names),
                                   box=box if part else None)),
                ("projection", picture(drawn, words("deconvnet.alt_projection", **how), box=box if part else None))]
    if part:
        cut = slice(top, bottom), slice(left, right)
        pictures += [("patch", picture(crop[cut], words("deconvnet.alt_patch", **names))),
                     ("patch_projection", picture(drawn[cut], words("deconvnet.alt_patch_projection", **how)))]
    return {**how, "pictures": pictures, "height": seen.shape[0], "width": seen.shape[1],
            "field": f"{bottom - top} × {right - left}", "image": f"{crop.shape[0]} × {crop.shape[1]}"}


def _how(run: Run, words: Words) -> str:
    """How a deconvnet passes through the layers of this network."""
    rules, others = rules_used(run.net)
    return words("page.separator").join(words(f"deconvnet.how_{rule}", names=", ".join(others)) for rule in rules)


def _covered(run: Run, held: HeldOut, indices: np.ndarray, seen: Seen, words: Words) -> list[dict]:
    """Of each photograph: itself with the square, and the three maps."""
    made = []
    for one in occlusions(run, seen, held, indices):
        found, crop, label = one.found, seen.crops[one.number], held.found.labels[indices[one.number]]
        how = {"number": one.number + 1, "square": found.square, "step": found.step, "layer": found.layer,
               "unit": found.unit, "name": run.classes[found.label], "true": run.classes[label],
               "positions": found.best.size,
               "low": f"{found.probability.min():.2f}", "high": f"{found.probability.max():.2f}",
               "least": f"{found.activation.min():.3g}", "most": f"{found.activation.max():.3g}"}
        pictures: list[tuple[str, Picture]] = [
            ("square", picture(crop, words("occlusion.alt_square", **how), box=(0, 0, found.square, found.square))),
            ("activation", picture(one.activation, words("occlusion.alt_activation", **how))),
            ("probability", picture(one.probability, words("occlusion.alt_probability", **how))),
            ("classes", picture(one.classes, words("occlusion.alt_classes", **how)))]
        made.append({**how, "pictures": pictures, "legend": one.legend, "clean": f"{found.clean[0]:.4g}",
                     "clean_probability": f"{found.clean[1]:.3f}", "mean": bool(run.pipeline.preprocess.mean)})
    return made


def _strongest(run: Run, held: HeldOut, words: Words) -> list[dict]:
    """Of each unit: the patches beside their projections."""
    made = []
    for one in strongest(run, held):
        how = {"layer": one.layer, "unit": one.unit, "units": one.shape[-1], "count": len(one.patches),
               "seen": f"{one.seen:,}", "most": f"{one.values[0]:.4g}", "least": f"{one.values[-1]:.4g}"}
        made.append({**how, "patches": picture(mosaic(one.patches, 3), words("top.alt_patches", **how)),
                     "projections": picture(mosaic(one.projections, 3), words("top.alt_projections", **how))})
    return made
