"""All ranks, and the networks that they are compared with, compute with one thread."""

import pytest

from minicnn.backend.cpu import set_threads
from minicnn.data.elpv import MissingPackageError
from minicnn.data.source import open_data
from minicnn.kernels.cpu import threads
from tests.parallel import mpi_steps


@pytest.fixture(autouse=True, scope="package")
def one_thread_per_rank():
    before = threads.threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture(scope="package")
def photographs():
    """mpi_steps.photographs; skipped if the package of photographs is not installed."""
    try:
        open_data("elpv")
    except MissingPackageError as error:
        pytest.skip(str(error))
    return mpi_steps.photographs
