"""Runs of these tests keep nothing in the user's cache, and leave the number of threads as it was."""

import pytest

from minicnn.backend.cpu import set_threads
from minicnn.kernels.cpu import threads


@pytest.fixture(autouse=True, scope="package")
def a_cache_of_their_own(tmp_path_factory):
    before = threads.threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    set_threads(before)
