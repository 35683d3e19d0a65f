"""minicnn/models/README.md: every network with its size, its work, what it reached, and where variants differ.

    minicnn models --markdown > minicnn/models/README.md
"""

from __future__ import annotations

from minicnn.models.model import Model, Variant
from minicnn.models.registry import MODELS, full_name

HEAD = """# The networks of this package

Written by `minicnn models --markdown`; do not edit. Parameters are counted with the classes of the data that a network
was published for. M MACs are millions of multiply-adds of convolutions and fully connected layers for one image, as in
the papers' "FLOPs". Published errors are in %, of the images that each heading names; without more words, of one
central crop. *Ours* is what trainings with this package reached on these images, with the recipe where it is not the
published one in full. LRN is local response normalisation.
"""
COLUMNS = "| network | parameters | M MACs | published error | ours | source |\n|---|---:|---:|---|---|---|"


def page() -> str:
    """The page as Markdown."""
    return "\n".join([HEAD, *(line for name, model in MODELS.items() for line in _section(name, model))])


def _section(name: str, model: Model) -> list[str]:
    lines = [f"## {model.title}", "", f"Errors on {model.tested_on}.", "", COLUMNS]
    lines += [_row(name, variant, row) for variant, row in model.variants.items()]
    for variant in model.variants:
        if different := model.differences(variant):
            lines += ["", f"`{full_name(name, variant)}` differs from `{name}`:", ""]
            lines += [f"- {line}" for line in different]
    other = [f"`{alias}` is `{full_name(name, variant)}`" for alias, variant in model.aliases.items()]
    return [*lines, *(["", f"Other names: {', '.join(other)}."] if other else []), ""]


def _row(name: str, variant: str, row: Variant) -> str:
    parameters = f"{row.parameters:,}"
    if row.auxiliary:
        parameters += f" ({row.parameters - row.auxiliary:,} in prediction)"
    return (f"| `{full_name(name, variant)}` | {parameters} | {row.macs / 1e6:,.1f} | {row.error} | "
            f"{row.ours or 'not trained yet'} | {row.source} |")
