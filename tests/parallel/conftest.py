"""Every rank here computes with one thread, and so do the networks that the ranks are compared with."""

import pytest

from minicnn.backend.cpu import set_threads
from minicnn.kernels.cpu import threads


@pytest.fixture(autouse=True, scope="package")
def one_thread_per_rank():
    before = threads.threads()
    set_threads(1)
    yield
    set_threads(before)
