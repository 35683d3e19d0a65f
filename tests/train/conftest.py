"""Runs of these tests keep nothing in the user's cache."""

import pytest


@pytest.fixture(autouse=True, scope="package")
def a_cache_of_their_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
