"""The miniature of ILSVRC2012, prepared once for all tests here."""

import os

import pytest

from tests.data.prepare.preparing import prepared
from tests.helpers import ilsvrc


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """No power failure is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The miniature from its original tars."""
    root = tmp_path_factory.mktemp("mini")
    lines = prepared(ilsvrc.originals(root / "source", ilsvrc.generated), root / "out")
    return root / "out", lines
