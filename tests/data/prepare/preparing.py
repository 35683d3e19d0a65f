"""Preparing a miniature of ILSVRC2012 in a test, and reading the result."""

import os

from minicnn.data.prepare.run import prepare

SIZE, PER_SHARD = 32, 4
DIFFERS = {"report.tsv", "words.json"}             # not every layout has empty classes and words


def prepared(source, out, **options):
    """Prepare the source; returns the progress messages, (label, text)."""
    lines = []
    options = {"size": SIZE, "per_shard": PER_SHARD, "workers": 2, "progress": False, **options}
    prepare(str(source), str(out), say=lambda label, text: lines.append((label, text)), **options)
    return lines


def contents(folder, leave_out=frozenset()):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder) if name not in leave_out}


def report(folder):
    return [tuple(line.split("\t")) for line in (folder / "report.tsv").read_text().splitlines()[1:]]
