"""The paper's full AlexNet on photographs: twenty steps in one process and on ranks. Takes minutes: -m slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minicnn.models.alexnet import alexnet
from minicnn.parallel.threads import run_local
from tests.parallel.mpi_steps import COUNT, LR, twenty_steps
from tests.parallel.test_mpi import MPIEXEC, ROOT, needs_mpi
from tests.parallel.test_partition import compare


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_twenty_steps(photographs, scheme, dtype):
    """The loss falls from 7.0 to 0.7. With 32 images rounding errors stay within the tolerance: the different
    summation order of columns changes conv1's displacement by 0.5e-3; with 8 images by 1e-3, and by 4e-3 at five times
    the learning rate."""
    x, labels = photographs(COUNT)
    compare(lambda: alexnet(dtype=dtype), scheme, 2, x.astype(dtype), labels, 20, lr=LR)


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize("scheme", ["columns", "data", "hybrid"])
def test_twenty_steps_under_mpiexec(photographs, scheme):
    """Processes give the same bits as threads, which the previous test compares with a single process."""
    done = subprocess.run([MPIEXEC, "-n", "2", sys.executable, "-m", "tests.parallel.mpi_steps", scheme], cwd=ROOT,
                          capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    threads = run_local(2, lambda comm: twenty_steps(comm, scheme), timeout=300)[0]
    assert f"checksum {threads}\n" in done.stdout
