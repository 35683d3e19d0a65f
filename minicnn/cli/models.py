"""minicnn models: the networks of this package."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from minicnn.errors import plural
from minicnn.models.page import page
from minicnn.models.registry import MODELS, family, find, full_name, named
from minicnn.train.recipes import recipes_of

ABOUT = "Print the networks of this package; of one, its variants and recipes."


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="such as alexnet: its variants, where each departs "
                        "from the paper, and its recipes; resnet: all networks whose names begin so")
    parser.add_argument("--markdown", action="store_true", help="print minicnn/models/README.md: all of them, with "
                        "their multiply-adds and differences")


def run(options: argparse.Namespace) -> int:
    if options.markdown:
        print(page(), end="")
    elif options.model:
        print("\n".join(table(relatives) if (relatives := _family(options.model)) else describe(options.model)))
    else:
        print("\n".join(table(MODELS)))
    return 0


def _family(name: str) -> list[str]:
    """The networks whose names begin with this one, where it is none itself."""
    return [] if named(name) else family(name)


def table(names: Collection[str]) -> list[str]:
    """One line for each variant of these networks."""
    rows = [("model", "parameters", "published error", "source")]
    for name in names:
        model = MODELS[name]
        for variant, row in model.variants.items():
            known = full_name(name, variant) if variant != model.default else name
            rows.append((known, f"{row.parameters:,}", row.error, row.source))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{name:{widths[0]}}  {count:>{widths[1]}}  {error:{widths[2]}}  {source}"
             for name, count, error, source in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    tested = dict.fromkeys(MODELS[name].tested_on for name in names)
    return [*lines, "", f"{len(rows) - 1} variants of {plural(len(names), 'network')}. Errors in % are those of "
            f"{'; '.join(tested)}.",
            "minicnn models MODEL: its variants and recipes; minicnn summary MODEL: its layers; minicnn train MODEL."]


def describe(name: str) -> list[str]:
    """The variants of a network and its recipes."""
    name, _ = find(name)
    model = MODELS[name]
    lines = [f"{model.title}; published errors on {model.tested_on}"]
    for variant, row in model.variants.items():
        default = ", the default" if variant == model.default and variant else ""
        lines += ["", f"{full_name(name, variant)}{default}: {row.parameters:,} parameters, {row.error} ({row.source})"]
        lines += [f"    {line}" for line in model.differences(variant)]
    lines += ["", "recipes, for --recipe:"]
    for recipe, entry in recipes_of(name).items():
        lines.append(f"    {recipe:12s} {entry.about or f'{entry.epochs} epochs; {entry.source}'}")
    aliases = [f"{alias} is {full_name(name, variant)}" for alias, variant in model.aliases.items()]
    return [*lines, "", f"other names: {', '.join(aliases)}"] if aliases else lines
