"""Where images come from and how they reach the network, in the order in which they flow:

    source.py       open_data("elpv" | "synthetic" | DIR) -> Splits: the one door
    folder.py elpv.py procedural.py prepared.py    the kinds of set behind it;  split.py cuts a set without a split
    prepare/        `minicnn prepare`: ImageNet's tars, class folders or WebDataset, decoded once into a prepared set
    images.py       a file's bytes -> uint8 (256, 256, 3)
    dataset.py      Dataset: labelled images of one size, the unreadable ones left out and named
    scan.py         one pass over a set before training: finds what cannot be read, fills the cache
    statistics.py   the same pass for the training set: mean image and the covariance of its colours
    sums.py         the exact sums over pixels behind it
    augment.py      crops, flips and colour shifts, drawn as numbers; the backend's augment_forward applies them
    loader.py       batches in an order fixed by (seed, epoch), decoded ahead by threads (prefetch.py)
"""
