"""Where images come from and how they reach the network, in the order in which they flow:

    source.py       open_data("elpv" | "synthetic" | DIR) -> Splits: opens every kind of data set
    folder.py elpv.py procedural.py prepared.py    the kinds of data set;  split.py splits a set that has no split
    prepare/        `minicnn prepare`: ImageNet's tars, class folders or WebDataset, decoded once into a prepared set
    images.py       a file's bytes -> uint8 (256, 256, 3), or the whole image (A, B, 3) with a short side of 256
    dataset.py      Dataset: labelled images of one size or short side, without the unreadable ones, which are listed
    scan.py         one pass over a set before training: finds unreadable images, fills the cache
    statistics.py   the same pass for the training set: mean image and the covariance of its colours
    pixel_stats.py  the exact sums over pixels that these are computed from
    preprocess.py   resize rule, crop, channel order, range, mean: plain data, kept in recipes and checkpoints
    augment.py      crops, boxes, flips and colour shifts, drawn as numbers; the backend's augment_forward and
                    resize_crop_forward apply them
    loader.py       batches in an order fixed by (seed, epoch), decoded ahead by threads (prefetch.py, stage_times.py)
    input.py        a batch's images -> the network's input
"""
