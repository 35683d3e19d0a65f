"""A CUDA device on one CPU core: it runs the .cu files as they are, thread by thread, and checks every access.

    shim.h        what CUDA C++ gives a kernel (threadIdx, __shared__, __syncthreads, shuffles), in plain C++
    runtime.cpp   threads as fibers, barriers, and checks of memory: bounds, races, uninitialised shared memory
    build.py      g++ on a .cu file and the shim, cached
    device.py     EmulatorDevice: the device of minicnn/backend/cuda/ops.py in place of CuPy; arrays are NumPy's

It says nothing about speed, about memory order between warps, or about how CuPy behaves (for that, tests/cuda_standin).
"""
