"""`minicnn prepare SOURCE OUT`: images in any of the usual layouts, decoded once into shards for training.

    files.py        folders and tars, tars within tars: one listing of files with their places, nothing is unpacked
    layout.py       which of those files are training and which validation images
    classes.py      the classes of these images, in canonical order
    webdataset.py   the classes of WebDataset's shards
    labels.py       the labels of ILSVRC2012's validation images, from any of the lists in use
    shards.py       decoding, in parallel, into shards that are whole or absent
    report.py       the list of files that are damaged, unusual or not used
    run.py          all these steps in order, and their progress messages

The result is described, and read, by minicnn/data/prepared.py.
"""
