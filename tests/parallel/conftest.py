"""Every rank here computes with one thread, and so do the networks that the ranks are compared with."""

import numpy as np
import pytest

from minicnn.backend.cpu import set_threads
from minicnn.data.elpv import MissingPackageError
from minicnn.data.source import open_data
from minicnn.kernels.cpu import threads


@pytest.fixture(autouse=True, scope="package")
def one_thread_per_rank():
    before = threads.threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture(scope="package")
def photographs():
    """(count, every) -> crops of `count` photographs minus their mean, float64, every so many pixels; and labels."""
    try:
        train = open_data("elpv").train
    except MissingPackageError as error:
        pytest.skip(str(error))

    def crops(count, every=1):
        images = np.stack([train.read(i)[16:240:every, 16:240:every] for i in range(count)]).astype(np.float64)
        return images - images.mean(axis=0), train.labels[:count].astype(np.int64)
    return crops
