"""All ranks, and the networks that they are compared with, compute with one thread."""

import pytest

from minicnn.backend.cpu import set_threads
from minicnn.kernels.cpu import threads


@pytest.fixture(autouse=True, scope="package")
def one_thread_per_rank():
    before = threads.threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture(scope="package")
def photographs():
    """mpi_steps.photographs; skipped if the package of photographs is not installed."""
    from minicnn.data.elpv import MissingPackageError  # here: a machine with a GPU may not have what reads them
    from minicnn.data.source import open_data
    from tests.parallel import mpi_steps

    try:
        open_data("elpv")
    except MissingPackageError as error:
        pytest.skip(str(error))
    return mpi_steps.photographs
