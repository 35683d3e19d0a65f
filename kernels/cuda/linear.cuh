// The matrices of a fully connected layer, and where their products go.
//
// Layout: x (N, I), w (I, O), y (N, O). Nothing is transposed in memory: a transposed matrix is read with rows and columns
// swapped. Grid: see gemm.cuh; blockIdx.z counts slices of the sum, each of `slice` terms.
#pragma once
#include "gemm.cuh"

struct Sizes {
  unsigned N, I, O;
  __device__ Matrix images(const T* x) const { return {x, N, I, I}; }
  __device__ Matrix weights(const T* w) const { return {w, I, O, O}; }
  __device__ Matrix outputs(const T* y) const { return {y, N, O, O}; }
  __device__ Result to_outputs(T* y, const T* bias, int relu) const { return {y + blockIdx.z * N * O, O, bias, relu, 0}; }
  __device__ Result to_images(T* dx) const { return {dx + blockIdx.z * N * I, I, nullptr, 0, 0}; }
  __device__ Result to_weights(T* dw, int add) const { return {dw + blockIdx.z * I * O, O, nullptr, 0, add}; }
  __device__ Updated updated(T* w, T* v, double lr_factor, const double* lr_value, T momentum, double decay) const {
    return {w, v, O, SgdStep(step_value(lr_factor, lr_value), momentum, decay, T(1))};
  }
};
