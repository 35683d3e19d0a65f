// Loss scaling. The smallest fp16 number is 2^-24, and gradients are often smaller; so the loss, and with it every gradient,
// is multiplied by a power of two, and the update divides by it again. The exponent rises after steps without an overflow,
// and falls when a gradient has overflowed; that step is skipped.
//
// This is decided here and not on the host, which does not have to wait for it:
//     state[0]  the exponent      state[1]  steps since it last changed
//     state[2]  whether a gradient of this step is infinite or NaN            state[3]  steps skipped so far
#include "common.cuh"

// state[2] = 1 where dw holds an infinity or a NaN, the two whose difference from themselves is not 0. Grid: one-
// dimensional, blocks of 256, 16 bytes a thread. Every thread that finds one sets the flag; the order does not matter.
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
