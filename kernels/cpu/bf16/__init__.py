"""Products with factors rounded to bf16 and sums in float32: convolution and fully connected layers of "cpu:bf16".

    x, dy, w             -> bf16, in the order in which a block reads them         rounding.py, source.py
                                  |
                             block.py       32 x 32 sums at a time, by AMX tiles or by vdpbf16ps: the only inner loop
                                  |
    y, dx, dw            <- bias and ReLU on the way out                           correlate.py, weights.py, linear.py

conv.py and linear.py have the operations, available.py says whether this machine has the instructions. Denormals count
as zero in the factors, as the instructions have it; NaN and infinity are kept, and zeros fill whatever is padding.
Activations and their gradients, x, y, dx and dy, are stored in bf16 (stored.py), or are float32; parameters, their
gradients and updates are float32.
"""
