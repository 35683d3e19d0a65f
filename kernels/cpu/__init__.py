"""The same operations in Numba, with the innermost loops of convolution and fully connected layers in LLVM IR."""
