"""A short sample of damaged files; `make fuzz` reads a hundred thousand."""

import subprocess
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.mutants import WAYS, mutant
from tests.fuzz.run import FAULTS, fuzz


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_read(kind):
    found, faults = fuzz(kind, 0, max(2, round(12 * KINDS[kind].weight)))
    assert faults == [] and not set(found) & set(FAULTS)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says how much memory a read took")
@pytest.mark.parametrize("harm, fault", [(lambda: bytearray(80 * 2**20).find(b"x"), "memory"),
                                         (lambda: subprocess.run(["true"], check=True), "executed")])
def test_memory_and_execution_are_noticed(tmp_path, monkeypatch, harm, fault):
    kind = Kind(lambda folder: (folder / "a").write_bytes(b"four"), ("a",), lambda folder, file: harm() and None,
                ours=False, foreign=True)
    monkeypatch.setitem(KINDS, "harmful", kind)
    found, faults = fuzz("harmful", 0, 2)
    assert found[fault] == len(faults) == 2


def test_mutants_are_the_same_for_a_seed_and_differ_from_the_file():
    data = bytes(range(256)) * 4

    def some(seed):
        rng = Random(seed)
        return [mutant(data, [data, b"donor" * 50], rng) for _ in range(50)]

    assert some(1) == some(1) != some(2) and data not in some(1)
    lengths = {len(one) for one in some(3)}
    assert min(lengths) < len(data) < max(lengths) and len(WAYS) == 5
