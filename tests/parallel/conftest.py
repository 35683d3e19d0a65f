"""Every rank here computes with one thread, and so do the networks that the ranks are compared with."""

import pytest

from minicnn.backend.cpu import set_threads
from minicnn.data.elpv import MissingPackageError
from minicnn.data.source import open_data
from minicnn.kernels.cpu import threads
from tests.parallel import mpi_steps as twenty_steps


@pytest.fixture(autouse=True, scope="package")
def one_thread_per_rank():
    before = threads.threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture(scope="package")
def photographs():
    """twenty_steps.photographs, where the package of photographs is installed."""
    try:
        open_data("elpv")
    except MissingPackageError as error:
        pytest.skip(str(error))
    return twenty_steps.photographs
