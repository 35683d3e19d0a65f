"""Preparing a miniature of ILSVRC2012 in a test, and looking at what came out."""

import os

from minicnn.data.prepare.run import prepare

SIZE, PER_SHARD = 32, 4
DIFFERS = {"report.tsv", "words.json"}             # an empty class, and words, cannot be told by every layout


def prepared(source, out, **options):
    """What was said, by label."""
    lines = []
    options = {"size": SIZE, "per_shard": PER_SHARD, "workers": 2, "progress": False, **options}
    prepare(str(source), str(out), say=lambda label, text: lines.append((label, text)), **options)
    return lines


def contents(folder, leave_out=frozenset()):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder) if name not in leave_out}


def report(folder):
    return [tuple(line.split("\t")) for line in (folder / "report.tsv").read_text().splitlines()[1:]]
