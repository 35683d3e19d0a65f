"""Inference with a trained network, in the order in which it happens:

    crops.py       which parts of an image are shown: the central crop, or the papers' ten, 144, 150
    protocols.py   how each paper evaluated: its crops, or dense, and how their outputs are averaged
    metrics.py     loss and accuracy, summed over batches
    evaluate.py    all images of a data set: Evaluation;  `averaged`: of an ensemble
    predict.py     single photographs: the most probable classes
    dense.py       a net applied at all positions of a larger image, as a net of convolutions
"""
