// The matrices of a fully connected layer, and where their products go.
//
// Layout: x (N, I), w (I, O), y (N, O). Nothing is transposed in memory: a transposed matrix is read with rows and columns
// swapped. Grid: see gemm.cuh; blockIdx.z counts slices of the sum, each of `slice` terms.
#pragma once
#include "gemm.cuh"

struct Sizes {
  unsigned N, I, O;
  __device__ Matrix<S> images(const S* x) const { return {x, N, I, I}; }
  __device__ Matrix<T> weights(const T* w) const { return {w, I, O, O}; }
  __device__ Matrix<S> outputs(const S* y) const { return {y, N, O, O}; }
  // Where this slice's sums of a result of `size` elements begin.
  __device__ static T* of_slice(T* partial, unsigned size) { return partial ? partial + blockIdx.z * size : nullptr; }
  __device__ Result<S> to_outputs(S* y, T* partial, const T* bias, int relu) const { return {y, of_slice(partial, N * O), O, bias, relu, 0}; }
  __device__ Result<S> to_images(S* dx, T* partial) const { return {dx, of_slice(partial, N * I), I, nullptr, 0, 0}; }
  __device__ Result<T> to_weights(T* dw, T* partial, int add) const { return {dw, of_slice(partial, I * O), O, nullptr, 0, add}; }
  __device__ Updated updated(T* w, T* v, double lr_factor, const double* lr_value, T momentum, double decay) const {
    return {w, v, O, SgdStep(step_value(lr_factor, lr_value), momentum, decay, T(1))};
  }
};
