"""In place of hypothesis where it is not installed, as on a machine with a GPU and without a network: tests on random
inputs are skipped, and the others of the same files run. See conftest.py."""

from __future__ import annotations

import sys

import pytest


class _Anything:
    """A strategy, a profile: any attribute and any call gives it again."""

    def __getattr__(self, name):
        return self

    def __call__(self, *arguments, **options):
        return self


def given(*arguments, **options):
    return pytest.mark.skip(reason="hypothesis is not installed")


class settings(_Anything):                                                                              # noqa: N801
    """A decorator that changes nothing."""

    def __init__(self, *arguments, **options):
        pass

    def __call__(self, function):
        return function

    register_profile = load_profile = staticmethod(lambda *arguments, **options: None)


assume = strategies = _Anything()


def install() -> None:
    """`import hypothesis` finds this module."""
    sys.modules["hypothesis"] = sys.modules[__name__]
