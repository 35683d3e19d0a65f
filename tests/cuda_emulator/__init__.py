"""A CUDA device made of one CPU core: it runs the .cu files as they are, thread by thread, and watches every access.

    shim.h        what CUDA C++ gives a kernel (threadIdx, __shared__, __syncthreads, shuffles), in plain C++
    runtime.cpp   threads as fibers, barriers, and the watch over memory: bounds, races, uninitialised shared memory
    build.py      g++ on a .cu file and the shim, kept between runs
    device.py     EmulatorDevice: what minicnn/backend/cuda/ops.py launches on in place of CuPy; arrays are NumPy's

It says nothing about speed, about memory order between warps, or about how CuPy behaves; for that a GPU is needed.
"""
