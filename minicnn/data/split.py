"""Stratified splits: parts that hold the classes in the same proportions.

A split depends on the order of the images, the counts and a seed of its own, never on the training seed: two runs that
differ only in that seed are tested on the same images.
"""

from __future__ import annotations

import numpy as np

from minicnn.data.dataset import Dataset
from minicnn.errors import DataError
from minicnn.rng import purpose_id, random_words

HELD_OUT = 0.1                 # share of a set without a split that becomes val, and the same again test


def split_in_three(whole: Dataset, seed: int) -> tuple[Dataset, Dataset, Dataset, str]:
    """A set without a split as train, val and test; and a description of the split."""
    few = max(1, round(HELD_OUT * len(whole)))
    parts = stratified_split(whole.labels, (few, few), seed, whole.name)
    train, val, test = (whole.select(at, f"{whole.name}/{part}")
                        for at, part in zip(parts, ("train", "val", "test"), strict=True))
    return train, val, test, (f"no split of its own: split by class into {len(train)} train, {len(val)} val, "
                              f"{len(test)} test")


def hold_out_val(train: Dataset, name: str, seed: int) -> tuple[Dataset, Dataset, str]:
    """A training set as training and validation set; and a description of the split."""
    few = max(1, round(HELD_OUT * len(train)))
    keep, held_out = stratified_split(train.labels, (few,), seed, train.name)
    return (train.select(keep, f"{name}/train"), train.select(held_out, f"{name}/val"),
            "no val/: a tenth of train/ was held out for it")


def stratified_split(strata, counts, seed: int = 0, name: str = "the set") -> list[np.ndarray]:
    """Sorted indices of the parts: the rest first, then one part of each of `counts` images.

    strata is (N,), any labels: every part has them in the proportions of the whole, to within one image. The first part
    keeps at least one image of each. DataError when there are too few images.
    """
    names, strata = np.unique(np.asarray(strata), return_inverse=True)
    keys = random_words(seed, purpose_id("split"), 0, np.arange(len(strata)), 1)[:, 0]
    shuffled = np.argsort(keys, kind="stable")
    queues = [shuffled[strata[shuffled] == k] for k in range(len(names))]
    sizes = np.array([len(queue) for queue in queues])
    taken, parts = np.zeros_like(sizes), []
    for count in counts:
        if count < 1 or count > (sizes - taken - 1).sum():
            raise DataError(f"{name}: {len(strata)} images of {len(names)} classes are too few to hold "
                            f"out {sum(counts)} and train on the rest; add images")
        shares = _apportion(count, sizes, sizes - taken - 1)
        parts.append(np.sort(np.concatenate([q[t:t + s] for q, t, s in zip(queues, taken, shares, strict=True)])))
        taken += shares
    return [np.sort(np.concatenate([q[t:] for q, t in zip(queues, taken, strict=True)])), *parts]


def _apportion(count: int, sizes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """`count` distributed in proportion to `sizes`, at most `room` each, by largest remainder; int (K,)."""
    quotas = count * sizes / sizes.sum()
    shares = np.minimum(np.floor(quotas).astype(int), room)
    while shares.sum() < count:
        shares[np.argmax(np.where(shares < room, quotas - shares, -np.inf))] += 1
    return shares
