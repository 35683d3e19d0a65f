"""Limits of control groups, of both versions, and of those around the process's own."""

import math
import os

import pytest

from minicnn.system import container, cores
from minicnn.train.watch.memory import free_memory

GIB = 2**30


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """limits(own, {file: text}): what the system shows of the control groups."""
    monkeypatch.setattr(container, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(container, "OWN", tmp_path / "own")

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / name).write_text(text)
    return write


CONTAINER, JOB, OLD = "0::/\n", "0::/batch/job7\n", "5:cpuset:/\n4:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n0::/\n"


@pytest.mark.parametrize(("own", "files", "quota"), [
    (CONTAINER, {}, math.inf), (CONTAINER, {"cpu.max": "max 100000\n"}, math.inf),
    (CONTAINER, {"cpu.max": "50000 100000\n"}, 0.5), (JOB, {"batch/job7/cpu.max": "150000 100000\n"}, 1.5),
    (JOB, {"batch/cpu.max": "200000 100000", "batch/job7/cpu.max": "max 100000", "cpu.max": "300000 100000"}, 2.0),
    (OLD, {"cpu/docker/1/cpu.cfs_quota_us": "-1", "cpu/docker/1/cpu.cfs_period_us": "100000"}, math.inf),
    (OLD, {"cpu/docker/1/cpu.cfs_quota_us": "25000", "cpu/docker/1/cpu.cfs_period_us": "100000"}, 0.25),
    (OLD, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
    ("0::/../other\n", {"cpu.max": "100000 100000"}, 1.0), ("", {"cpu.max": "100000 100000"}, math.inf)])
def test_processor_time(limits, own, files, quota):
    limits(own, files)
    assert container.cpu_quota() == quota


@pytest.mark.parametrize(("quota", "wanted"), [("50000", 1), ("100000", 1), ("210000", 3), ("900000", 4), ("max", 4)])
def test_threads_are_no_more_than_the_time_for_them(limits, monkeypatch, quota, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4))
    limits(CONTAINER, {"cpu.max": f"{quota} 100000"})
    assert cores.available_cores() == wanted


@pytest.mark.parametrize(("own", "files", "left"), [
    (CONTAINER, {"memory.max": "max", "memory.current": "5", "memory.stat": "anon 5"}, []),
    (JOB, {"batch/memory.max": f"{3 * GIB}", "batch/memory.current": f"{2 * GIB}",
           "batch/memory.stat": f"anon 7\ninactive_file {GIB // 4}\nactive_file {GIB // 4}\n"}, [1.5 * GIB]),
    (OLD, {f"memory/docker/1/memory.{name}": f"{size}\n" for name, size in (
        ("limit_in_bytes", 2 * GIB), ("usage_in_bytes", GIB), ("stat", "cache 5"))}, [GIB])])
def test_memory(limits, own, files, left):
    limits(own, files)
    assert container.memory_left() == left
    assert not left or free_memory() <= left[0]


def test_where_there_are_no_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "OWN", tmp_path / "nothing")
    assert container.cpu_quota() == math.inf and container.memory_left() == []
