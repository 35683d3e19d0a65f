"""Messages about names that are not known."""

import pytest

from minicnn.errors import expected, expected_one_of, listed


@pytest.mark.parametrize("say", [expected, expected_one_of])
def test_names_that_are_not_known(say):
    assert say("other", ["conv1", "fc"]) == "expected one of conv1, fc"
    assert say("con1", ["conv1", "fc"]).startswith("did you mean 'conv1'?")


def test_long_lists_are_cut():
    names = [f"n{i}" for i in range(30)]
    assert listed(names[:24]) == ", ".join(names[:24])
    assert listed(names) == "n0, n1, n2, n3, n4, n5, ... (18 more) ..., n24, n25, n26, n27, n28, n29"
