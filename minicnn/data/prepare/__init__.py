"""`minicnn prepare SOURCE OUT`: photographs as people have them, decoded once into shards for training.

    files.py        folders and tars, tars within tars: one listing of files with their places, nothing is unpacked
    layout.py       which of those files are the training set, which validation, and of what class
    webdataset.py   the classes of WebDataset's shards
    labels.py       the labels of ILSVRC2012's validation images, in all the forms in which people have them
    shards.py       decoding, in parallel, into shards that are whole or absent
    report.py       every file that is damaged, odd or not used
    run.py          all of it in order, and what it says meanwhile

What comes out is described, and read, by minicnn/data/prepared.py.
"""
