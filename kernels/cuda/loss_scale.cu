// Loss scaling. fp16 has no numbers below 2^-24, and gradients are often smaller; so the loss is multiplied with a power of
// two, every gradient comes out that much larger, and the update divides again. The power goes up while all is well, and
// down, the step being left out, when a gradient has overflowed.
//
// All of that is decided here and not on the host, which need not wait for it:
//     state[0]  the exponent      state[1]  steps since it last changed
//     state[2]  whether a gradient of this step is infinite or no number      state[3]  steps left out so far
#include "common.cuh"

// state[2] = 1 where dw holds an infinity or a NaN, the two whose difference from themselves is not 0. Grid: one-
// dimensional, blocks of 256, 16 bytes a thread. Whoever finds one says so; in which order does not matter.
extern "C" __global__ void find_overflow(const T* dw, int* state, unsigned n) {
  bool found = false;
  unsigned packs = aligned(dw) ? n / VECTOR : 0;
  for (unsigned i = thread_number(); i < packs; i += thread_count()) {
    Pack<VECTOR> pack = load<VECTOR>(dw + i * VECTOR);
    for (int j = 0; j < VECTOR; j++) found |= pack.v[j] - pack.v[j] != T(0);
  }
  for (unsigned i = packs * VECTOR + thread_number(); i < n; i += thread_count()) found |= dw[i] - dw[i] != T(0);
  if (found) atomicOr(state + 2, 1);
}

// The state for the next step. Grid: a single thread.
extern "C" __global__ void next_loss_scale(int* state, int steady, int lowest, int highest) {
  if (state[2]) {
    state[0] = max(state[0] - 1, lowest), state[1] = 0, state[3]++;
  } else if (++state[1] == steady) {
    state[0] = min(state[0] + 1, highest), state[1] = 0;
  }
  state[2] = 0;
}
