"""kill -9 at any moment while a set is prepared, then the same command again: the same bytes as undisturbed.

A few kills in the normal suite, thirty marked slow. What was finished is not made again.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.helpers import ilsvrc
from tests.helpers.trees import picture

KILLS = 30
IMAGES, SHARDS = 96, 17                            # 16 shards of train, one of val


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A tar with 96 photographs of 500 x 375 and some odd ones."""
    files = {}
    for k in range(IMAGES):
        image = Image.fromarray(picture(k, 94, 125)).resize((500, 375))
        kind = {7: "grey", 31: "truncated", 64: "cmyk"}.get(k, "jpeg")
        files[f"train/{'ab'[k % 2]}/{k:03d}.jpg"] = ilsvrc.encode(image, kind)
    files |= {f"val/{c}/{c}.jpg": ilsvrc.encode(ilsvrc.generated(ord(c))) for c in "ab"}
    path = tmp_path_factory.mktemp("source") / "photographs.tar"
    path.write_bytes(ilsvrc.tar_bytes(files))
    return path


def command(source, out):
    """minicnn prepare, in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "minicnn.cli", "prepare", source, out, "--per-shard", "6",
                             "--size", "96"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(process):
    process.stdout.read()
    process.stdout.close()
    return process.wait(timeout=300)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def kill_and_go_on(source, root, kills, seed):
    """Kill at random moments, in one folder after the other; each must end as the undisturbed one.

    A moment is some number of finished shards (after the last one come index and summary) and a little while more, so
    that kills fall everywhere however busy the machine is. Returns how many left finished shards to go on from.
    """
    assert finish(command(source, root / "undisturbed")) == 0
    expected = contents(root / "undisturbed")
    assert len(expected) == SHARDS + 5             # two indices, statistics, report, prepared.json
    moments, number, unfinished = random.Random(seed), 0, 0
    for _ in range(kills):
        out = root / str(number)
        before = finished(out)
        process = command(source, out)
        wanted = moments.randint(len(before), min(SHARDS, len(before) + 8))
        while len(finished(out)) < wanted and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.06))
        process.kill()
        ended = finish(process)
        assert ended in (0, -signal.SIGKILL)
        assert {name: (out / name).stat().st_mtime_ns for name in before} == before
        number += (out / "prepared.json").exists()
        unfinished += bool(finished(out))
    for k in range(number + 1):
        assert finish(command(source, root / str(k))) == 0
        assert contents(root / str(k)) == expected
    return unfinished


def finished(out):
    """Shards with a record, and when they were written."""
    try:
        records = [name for name in os.listdir(out / "unfinished") if name.endswith(".record")]
    except FileNotFoundError:                      # not begun, or done
        return {}
    return {name[:-7]: (out / name[:-7]).stat().st_mtime_ns for name in records}


def test_killed_a_few_times(source, tmp_path):
    kill_and_go_on(source, tmp_path, 3, seed=1)


@pytest.mark.slow
def test_killed_thirty_times(source, tmp_path):
    assert kill_and_go_on(source, tmp_path, KILLS, seed=2) >= KILLS // 3, "too few kills fell between the shards"
