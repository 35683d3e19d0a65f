"""The CUDA backend. In the order in which a call passes through them:

    ops.py            every operation as launches of kernels;  gemm_tiling.py    how matrix products are cut into tiles
    launcher.py       checks arguments (arguments.py) and launches;  source.py    the text of kernels, and NVRTC
    device.py         the GPU, through CuPy;  upload.py    copies of image batches to it;  streams.py    between ranks
"""
