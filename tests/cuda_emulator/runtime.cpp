// The emulated GPU: CUDA threads as fibers, barriers and warp operations, and checks of every access to memory.
//
// One block runs at a time. Each of its threads is a fiber with its own stack, which runs until it ends or waits; when all
// of them wait at the same barrier, all continue. Nothing runs in parallel, so errors are reproducible.
//
// The checks. A .cu file is compiled with -fsanitize=thread, so that it calls __tsan_read4(address) and the like; they are
// defined here. Each access must lie inside an array that was passed, or in shared memory. For each cell of memory the
// last writer and the readers are stored, with an epoch that a barrier increments; so these are detected in any order of
// the threads:
//   - reading or writing outside of every array, or writing to a const one
//   - two threads of a block, no barrier between them (in one warp: no warp operation), one of which writes
//   - two blocks, one of which writes: nothing orders blocks
//   - reading shared memory that no thread of this block has written, or that an asynchronous copy may still be writing
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace {
struct uint3 { unsigned x, y, z; };
}
extern "C" {
struct State { uint3 thread, block, block_size, grid_size; void* shared; } cuemu_state;
}

namespace {
// ---------------------------------------------------------------- fibers
constexpr size_t STACK = 64 * 1024;
enum Status : uint8_t { READY, AT_BARRIER, AT_WARP, DONE };
struct Copy { void* to; const void* from; int bytes, filled, group; uintptr_t pc; };
struct Product { float* c; uint64_t a, b, seen; int columns, kind, group; uintptr_t pc; };
struct Fiber {
  uint3 id;
  unsigned number, lane, warp;
  Status status;
  const char* file;                        // where it waits
  int line;
  unsigned mask;                           // of a warp operation: who takes part,
  unsigned char mine[64];                  //   the value of this lane,
  unsigned char all[32][64];               //   the values of all lanes
  std::vector<Copy> copies;                // asynchronous copies under way
  int group;                               // how many groups of them were committed
  std::vector<Product> products;           // products of a warpgroup under way
  std::vector<float> held;                 //   their sums, which must not be read meanwhile
  int products_group;
  bool products_allowed;                   //   by a fence
  uint16_t fences;                         // towards the asynchronous proxy: see cuemu_wgmma
#if defined(__x86_64__)
  void* sp;
#else
  ucontext_t context;
#endif
};

char* stacks;                              // one mapping, so that "is this a local variable?" is one comparison
std::vector<Fiber> fibers;
std::vector<unsigned> order;
Fiber* current;                            // null outside of kernels
void (*body)(void**);
void** body_arguments;
char error[600];
uintptr_t error_pc;

#if defined(__x86_64__)
void* main_sp;
extern "C" __attribute__((visibility("hidden"))) void cuemu_switch(void** save, void* load);
asm(".text\n.local cuemu_switch\n.type cuemu_switch,@function\ncuemu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp,(%rdi)\n  movq %rsi,%rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");
void to_main() { cuemu_switch(&current->sp, main_sp); }
void to_fiber(Fiber& fiber) {
  current = &fiber;
  cuemu_state.thread = fiber.id;
  cuemu_switch(&main_sp, fiber.sp);
}
#else
ucontext_t main_context;
void to_main() { swapcontext(&current->context, &main_context); }
void to_fiber(Fiber& fiber) {
  current = &fiber;
  cuemu_state.thread = fiber.id;
  swapcontext(&main_context, &fiber.context);
}
#endif

void entry() {
  body(body_arguments);
  current->status = DONE;
  to_main();
  abort();                                 // a finished fiber is never resumed
}

void prepare(Fiber& fiber) {
  char* stack = stacks + fiber.number * STACK;
#if defined(__x86_64__)
  void** sp = (void**)(stack + STACK);
  *--sp = nullptr;
  *--sp = (void*)entry;
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  fiber.sp = sp;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = STACK;
  makecontext(&fiber.context, entry, 0);
#endif
  fiber.status = READY;
  fiber.file = "";
  fiber.line = 0;
  fiber.copies.clear();
  fiber.group = 0;
  fiber.products.clear(), fiber.held.clear();
  fiber.products_group = 0, fiber.products_allowed = false, fiber.fences = 0;
}

// ---------------------------------------------------------------- errors
__attribute__((format(printf, 2, 3))) void fail(uintptr_t pc, const char* format, ...) {
  if (error[0]) return;
  va_list list;
  va_start(list, format);
  int n = vsnprintf(error, sizeof error, format, list);
  va_end(list);
  error_pc = pc;
  if (current && n > 0 && n < (int)sizeof error) {
    uint3 b = cuemu_state.block, t = current->id;
    snprintf(error + n, sizeof error - n, " [block (%u, %u, %u), thread (%u, %u, %u)]", b.x, b.y, b.z, t.x, t.y, t.z);
  }
}
// The same from inside a kernel: the fiber is not resumed.
#define DIE(...) do { fail(__VA_ARGS__); to_main(); } while (0)

// ---------------------------------------------------------------- the watch
struct Cell {                              // of one element (of 4 bytes in shared memory)
  uint32_t write_epoch, read_epoch;
  uint16_t writer, reader;
  uint16_t write_warp_epoch, read_warp_epoch, write_fences;
  uint8_t write_bytes;                     // which bytes of the cell
  uint8_t readers;                         // 0: one thread, 1: several of one warp, 2: of several warps
  uint8_t other_block_read;
  uint8_t in_flight;                       // an asynchronous copy to here has begun, and has not been waited for
};
struct Region {
  uintptr_t low, high;
  int shift, parameter;                    // log2 of the size of a cell; which argument, -1 for shared memory
  bool constant;
  std::vector<Cell> cells;
};
std::vector<Region> regions;               // slots stay from launch to launch: epochs only grow, so nothing is cleared
size_t used_regions;
Region* last_region;
bool watching;
bool beginning;                            // the write at hand is the beginning of an asynchronous copy
uint32_t epoch = 1, launch_epoch, block_epoch;
std::vector<uint16_t> warp_epochs;
uintptr_t library_low, library_high;       // of the kernel: its constant tables may be read
const char* kernel_name = "";

Region& add_region(uintptr_t low, size_t bytes, int shift, int parameter, bool constant) {
  if (regions.size() == used_regions) regions.emplace_back();
  Region& region = regions[used_regions++];
  region.low = low, region.high = low + bytes, region.shift = shift;
  region.parameter = parameter, region.constant = constant;
  size_t cells = (bytes + (size_t(1) << shift) - 1) >> shift;
  if (watching && region.cells.size() < cells) region.cells.resize(cells);
  return region;
}

void stray(uintptr_t address, unsigned size, bool write, uintptr_t pc) {
  const Region* near = nullptr;
  uintptr_t distance = ~uintptr_t(0);
  for (size_t i = 0; i < used_regions; i++) {
    const Region& r = regions[i];
    uintptr_t d = address < r.low ? r.low - address : address + size > r.high ? address + size - r.high : 0;
    if (d < distance) distance = d, near = &r;
  }
  const char* what = write ? "writes" : "reads";
  if (!near || distance > (1u << 20)) DIE(pc, "%s %u bytes at an address that belongs to no argument", what, size);
  long at = (long)(address - near->low), has = (long)(near->high - near->low);
  if (near->parameter < 0) DIE(pc, "%s %u bytes outside of shared memory, at byte %ld of %ld", what, size, at, has);
  DIE(pc, "%s %u bytes out of bounds, at byte %ld of argument %d, which has %ld", what, size, at, near->parameter, has);
}

const char* name_of(const Region& r, char* buffer, size_t size) {
  if (r.parameter < 0) return "shared memory";
  snprintf(buffer, size, "argument %d", r.parameter);
  return buffer;
}

void race(const Region& r, uintptr_t address, const char* now, const char* before, unsigned other, bool other_block, uintptr_t pc) {
  char buffer[32];
  const char* name = name_of(r, buffer, sizeof buffer);
  unsigned long byte = address - r.low;
  if (other_block) DIE(pc, "race: %s byte %lu of %s, which another block %s", now, byte, name, before);
  DIE(pc, "race: %s byte %lu of %s, which thread %u %s with no barrier in between", now, byte, name, other, before);
}

// Whether an access of thread `other` in this epoch may clash with one by the current thread: not if it is the same
// thread, nor if both are in one warp that has synchronised since.
inline bool unordered(unsigned other, uint16_t other_warp_epoch) {
  if (other == current->number) return false;
  return other / 32 != current->warp || other_warp_epoch == warp_epochs[current->warp];
}

void access(uintptr_t address, unsigned size, bool write, uintptr_t pc) {
  if (!watching || !current) return;
  if (address - (uintptr_t)stacks < STACK * 1024) return;                       // a local variable
  Region* region = last_region;
  if (!region || address < region->low || address + size > region->high) {
    region = nullptr;
    for (size_t i = 0; i < used_regions && !region; i++)
      if (address >= regions[i].low && address + size <= regions[i].high) region = &regions[i];
    if (!region) {
      uintptr_t state = (uintptr_t)&cuemu_state;
      if (address >= state && address + size <= state + sizeof cuemu_state && !write) return;
      if (address >= library_low && address + size <= library_high && !write) return;
      stray(address, size, write, pc);
    }
    last_region = region;
  }
  if (size > 1 && address % size) DIE(pc, "%s %u bytes at a misaligned address", write ? "writes" : "reads", size);
  bool shared = region->parameter < 0;
  if (write && region->constant) DIE(pc, "writes to argument %d, which is const", region->parameter);
  uint16_t warp_epoch = warp_epochs[current->warp];
  uintptr_t offset = address - region->low, end = offset + size, step = uintptr_t(1) << region->shift;
  for (uintptr_t at = offset; at < end; at = (at | (step - 1)) + 1) {
    Cell& cell = region->cells[at >> region->shift];
    uintptr_t stop = std::min(end, (at | (step - 1)) + 1);
    uint8_t bytes = uint8_t(((1u << (stop - at)) - 1) << (at & (step - 1)));
    bool written = cell.write_epoch >= launch_epoch, read = cell.read_epoch >= launch_epoch;
    if (written && (cell.write_bytes & bytes)) {
      if (cell.write_epoch < block_epoch && !shared) race(*region, region->low + at, write ? "writes" : "reads", "wrote", 0, true, pc);
      if (cell.write_epoch == epoch && unordered(cell.writer, cell.write_warp_epoch))
        race(*region, region->low + at, write ? "writes" : "reads", "wrote", cell.writer, false, pc);
    }
    if (write) {
      if (read) {
        if (!shared && (cell.other_block_read || cell.read_epoch < block_epoch)) race(*region, region->low + at, "writes", "read", 0, true, pc);
        if (cell.read_epoch == epoch) {
          bool clash = cell.readers == 0 ? unordered(cell.reader, cell.read_warp_epoch)
                     : cell.readers == 2 || cell.reader / 32 != current->warp || cell.read_warp_epoch == warp_epoch;
          if (clash) race(*region, region->low + at, "writes", "read", cell.reader, false, pc);
        }
      }
      cell.write_epoch = epoch, cell.writer = current->number, cell.write_warp_epoch = warp_epoch, cell.write_bytes = bytes;
      cell.write_fences = current->fences;
      cell.in_flight = beginning;
      continue;
    }
    if (shared && cell.write_epoch < block_epoch) DIE(pc, "reads byte %lu of shared memory, which no thread has written", (unsigned long)at);
    if (shared && cell.in_flight) DIE(pc, "reads byte %lu of shared memory, whose copy has not been waited for", (unsigned long)at);
    if (!read) cell.other_block_read = 0;
    else if (cell.read_epoch < block_epoch) cell.other_block_read = 1;
    if (cell.read_epoch != epoch) cell.readers = 0;
    else if (cell.reader / 32 != current->warp) cell.readers = 2;
    else if (cell.reader != current->number && cell.read_warp_epoch == warp_epoch) cell.readers = std::max<uint8_t>(cell.readers, 1);
    else if (cell.readers == 1 && cell.read_warp_epoch != warp_epoch) cell.readers = 0;
    cell.read_epoch = epoch, cell.reader = current->number, cell.read_warp_epoch = warp_epoch;
  }
}

// ---------------------------------------------------------------- a block
bool meet_warp(Fiber& fiber) {             // lets the lanes of a warp operation go on, if all have come
  Fiber* warp = &fibers[fiber.warp * 32];
  unsigned live = 0;
  for (unsigned lane = 0; lane < 32; lane++) {
    bool exists = fiber.warp * 32 + lane < fibers.size();
    if (exists && warp[lane].status != DONE) live |= 1u << lane;
    if (!(fiber.mask >> lane & 1)) continue;
    if (!exists) { fail(0, "%s:%d: the mask names lane %u, which the block does not have", fiber.file, fiber.line, lane); return false; }
    const Fiber& other = warp[lane];
    if (other.status == DONE) { fail(0, "%s:%d: the mask names lane %u, which has returned", fiber.file, fiber.line, lane); return false; }
    if (other.status != AT_WARP || other.mask != fiber.mask) return false;
    if (other.line != fiber.line) { fail(0, "%s:%d: lane %u is at another warp operation, line %d", fiber.file, fiber.line, lane, other.line); return false; }
  }
  for (unsigned lane = 0; lane < 32; lane++) {
    if (!(fiber.mask >> lane & 1)) continue;
    for (unsigned from = 0; from < 32; from++)
      if (fiber.mask >> from & 1) memcpy(warp[lane].all[from], warp[from].mine, sizeof fiber.mine);
    warp[lane].status = READY;
  }
  if ((live & ~fiber.mask) == 0) warp_epochs[fiber.warp]++;
  return true;
}

bool run_block() {
  size_t n = fibers.size(), done = 0;
  for (Fiber& fiber : fibers) prepare(fiber);
  for (;;) {
    bool progress = false;
    for (unsigned i : order) {
      Fiber& fiber = fibers[i];
      if (fiber.status == AT_WARP && !meet_warp(fiber)) { if (error[0]) return false; continue; }
      if (fiber.status != READY) continue;
      to_fiber(fiber);
      current = nullptr;
      progress = true;
      if (error[0]) return false;
      done += fiber.status == DONE;
    }
    if (done == n) {
      for (const Fiber& fiber : fibers)
        if (!fiber.products.empty()) { fail(fiber.products[0].pc, "thread %u returned while its products were under way", fiber.number); return false; }
      return true;
    }
    size_t waiting = 0;
    const Fiber* first = nullptr;
    for (const Fiber& fiber : fibers)
      if (fiber.status == AT_BARRIER) { waiting++; if (!first) first = &fiber; }
    if (waiting && waiting + done == n) {
      if (done) { fail(0, "%s:%d: %zu threads wait at a barrier that %zu threads never reach (they returned)", first->file, first->line, waiting, done); return false; }
      for (const Fiber& fiber : fibers)
        if (fiber.line != first->line || strcmp(fiber.file, first->file)) {
          fail(0, "%s:%d: divergent barrier: other threads wait at line %d", fiber.file, fiber.line, first->line);
          return false;
        }
      for (Fiber& fiber : fibers) fiber.status = READY;
      epoch++;
      continue;
    }
    if (!progress) {
      for (const Fiber& fiber : fibers) if (fiber.status == AT_WARP) first = &fiber;
      fail(0, "%s:%d: deadlock: thread %u waits for lanes %08x, which do not come", first->file, first->line, first->number, first->mask);
      return false;
    }
  }
}

struct Library { uintptr_t inside, low, high; char* tls; size_t tls_size; };
int find_library(dl_phdr_info* info, size_t, void* data) {
  auto& library = *(Library*)data;
  uintptr_t low = ~uintptr_t(0), high = 0;
  size_t tls = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    uintptr_t at = (uintptr_t)info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD) low = std::min(low, at), high = std::max(high, at + header.p_memsz);
    if (header.p_type == PT_TLS) tls = header.p_memsz;
  }
  if (library.inside < low || library.inside >= high) return 0;
  library.low = low, library.high = high, library.tls = (char*)info->dlpi_tls_data, library.tls_size = tls;
  return 1;
}
}  // namespace

// ---------------------------------------------------------------- what the shim and build.py call
extern "C" {
struct CuemuArray { uintptr_t address; size_t bytes; int item, parameter, constant; };

// 0, or 1 with cuemu_error() saying what was wrong. `thread_order`: 0 forward, 1 backward, else shuffled by that seed.
int cuemu_launch(void (*call)(void**), void** arguments, const unsigned* grid, const unsigned* block, size_t shared_bytes,
                 unsigned thread_order, int watch, const CuemuArray* arrays, int count) {
  error[0] = 0, error_pc = 0;
  size_t n = (size_t)block[0] * block[1] * block[2];
  if (!n || n > 1024 || block[2] > 64) { fail(0, "a block of %u x %u x %u threads cannot be launched", block[0], block[1], block[2]); return 1; }
  if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) {
    fail(0, "a grid of %u x %u x %u blocks cannot be launched", grid[0], grid[1], grid[2]);
    return 1;
  }
  if (!stacks) stacks = (char*)mmap(nullptr, STACK * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) { stacks = nullptr; fail(0, "no memory for the stacks of the threads"); return 1; }
  cuemu_state.grid_size = {grid[0], grid[1], grid[2]};
  cuemu_state.block_size = {block[0], block[1], block[2]};
  fibers.resize(n), order.resize(n), warp_epochs.assign((n + 31) / 32, 0);
  for (unsigned i = 0; i < n; i++) {
    Fiber& fiber = fibers[i];
    fiber.id = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
    fiber.number = i, fiber.lane = i % 32, fiber.warp = i / 32;
    order[i] = thread_order == 1 ? unsigned(n - 1 - i) : i;
  }
  unsigned random = thread_order;
  for (size_t i = n - 1; thread_order > 1 && i > 0; i--) {
    random = random * 1664525u + 1013904223u;
    std::swap(order[i], order[(random >> 8) % (i + 1)]);
  }
  body = call, body_arguments = arguments;
  beginning = false;                       // a launch that failed may have left it
  watching = watch, used_regions = 0, last_region = nullptr;
  launch_epoch = ++epoch;
  Library library{(uintptr_t)call, 0, 0, nullptr, 0};
  dl_iterate_phdr(find_library, &library);
  library_low = library.low, library_high = library.high;
  for (int i = 0; i < count; i++)
    add_region(arrays[i].address, arrays[i].bytes, arrays[i].item >= 8 ? 3 : arrays[i].item >= 4 ? 2 : arrays[i].item >= 2 ? 1 : 0, arrays[i].parameter, arrays[i].constant);
  if (library.tls) add_region((uintptr_t)library.tls, library.tls_size, 2, -1, false);
  char* dynamic = shared_bytes ? (char*)aligned_alloc(128, (shared_bytes + 127) / 128 * 128) : nullptr;
  if (dynamic) add_region((uintptr_t)dynamic, shared_bytes, 2, -1, false);
  cuemu_state.shared = dynamic;
  size_t blocks = (size_t)grid[0] * grid[1] * grid[2];
  bool right = true;
  for (size_t i = 0; right && i < blocks; i++) {
    size_t b = thread_order == 1 ? blocks - 1 - i : i;
    cuemu_state.block = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
    block_epoch = ++epoch;
    if (library.tls) memset(library.tls, 0xFF, library.tls_size);               // NaN as a float, -1 as an int
    if (dynamic) memset(dynamic, 0xFF, shared_bytes);
    right = run_block();
    current = nullptr;
  }
  free(dynamic);
  return !right;
}
const char* cuemu_error() { return error; }
uintptr_t cuemu_error_pc() { return error_pc; }
uintptr_t cuemu_library_base() { return library_low; }

void cuemu_barrier(const char* file, int line) {
  current->file = file, current->line = line, current->status = AT_BARRIER;
  to_main();
}

// Every lane of the mask passes some bytes (at most 64); `all` then holds those of each of the 32 lanes.
static void meet(const void* mine, int bytes, unsigned mask, const char* file, int line) {
  Fiber* fiber = current;
  if (!(mask >> fiber->lane & 1)) DIE(0, "%s:%d: lane %u is not in its own mask", file, line, fiber->lane);
  memcpy(fiber->mine, mine, bytes);
  fiber->mask = mask, fiber->file = file, fiber->line = line, fiber->status = AT_WARP;
  to_main();
}
void cuemu_exchange(const void* mine, int bytes, void* all, unsigned mask, const char* file, int line) {
  meet(mine, bytes, mask, file, line);
  for (int lane = 0; lane < 32; lane++) memcpy((char*)all + lane * bytes, current->all[lane], bytes);
}
void cuemu_warp_barrier(const char* file, int line, unsigned mask) { meet("", 1, mask, file, line); }
void cuemu_shuffle(void* value, int bytes, unsigned mask, int other, int kind, const char* file, int line) {
  meet(value, bytes, mask, file, line);
  int lane = (int)current->lane, from = lane;
  if (kind == 0) from = other & 31;
  if (kind == 1) from = lane - other < 0 ? lane : lane - other;
  if (kind == 2) from = lane + other > 31 ? lane : lane + other;
  if (kind == 3) from = (lane ^ other) & 31;
  if (!(mask >> from & 1)) DIE(0, "%s:%d: reads lane %d, which is not in the mask", file, line, from);
  memcpy(value, current->all[from], bytes);
}

// The registers that the lanes of a warp pass to the tensor cores: four of a, then two of b.
struct Fragments {
  unsigned of[32][6];
  Fragments(const unsigned* a, const unsigned* b) {
    unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    cuemu_exchange(mine, sizeof mine, of, 0xffffffffu, "mma", 0);
  }
};
static float as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// mma.sync.m16n8k8 in TF32, by the fragment layout of the PTX manual: with g = lane / 4 and t = lane % 4 a lane holds
//     a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)     b: (t, g), (t + 4, g)     c: (g, 2t), (g, 2t + 1), (g + 8, 2t) ...
// The hardware reads the upper 19 bits of each operand and multiplies exactly; its order of additions is not documented.
void cuemu_mma_tf32(float* c, const unsigned* a, const unsigned* b) {
  Fragments all(a, b);
  auto number = [&](int lane, int i) { return as_float(all.of[lane][i] & ~0x1fffu); };
  int g = current->lane / 4, t = current->lane % 4;
  for (int i = 0; i < 4; i++) {
    int row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (int k = 0; k < 8; k++)
      c[i] += number(row % 8 * 4 + k % 4, row / 8 + k / 4 * 2) * number(column * 4 + k % 4, 4 + k / 4);
  }
}

// mma.sync.m16n8k16 in bf16 and fp16: a register holds two neighbours along the sum, the first in its lower half.
//     a: (g, 2t ..), (g + 8, 2t ..), (g, 2t + 8 ..), (g + 8, 2t + 8 ..)     b: (2t .., g), (2t + 8 .., g)     c: as in TF32
static void mma_of_pairs(float* c, const unsigned* a, const unsigned* b, float (*value)(unsigned)) {
  Fragments all(a, b);
  auto number = [&](int lane, int i, int upper) { return value(all.of[lane][i] >> 16 * upper & 0xffffu); };
  int g = current->lane / 4, t = current->lane % 4;
  for (int i = 0; i < 4; i++) {
    int row = g + i / 2 * 8, column = 2 * t + i % 2;
    for (int k = 0; k < 16; k++)
      c[i] += number(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2) * number(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
  }
}
void cuemu_mma_bf16(float* c, const unsigned* a, const unsigned* b) {
  mma_of_pairs(c, a, b, [](unsigned bits) { return as_float(bits << 16); });
}
static float half(unsigned bits) {
  unsigned exponent = bits >> 10 & 31, mantissa = bits & 1023, sign = bits >> 15 << 31;
  if (exponent == 0) return as_float(sign | 0x3f800000u) * mantissa * 0x1p-24f;
  return as_float(sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
}
void cuemu_mma_fp16(float* c, const unsigned* a, const unsigned* b) { mma_of_pairs(c, a, b, half); }

// wgmma.mma_async: c (64, columns) += a b' by the four warps of a warpgroup, both operands in shared memory with the sum along
// their rows, 32 bytes of each. A descriptor holds, in units of 16 bytes, where the operand begins (bits 0 to 13) and how far
// its groups of eight rows lie apart (32 to 45), and how it is swizzled (62, 63): 1 for rows of 128 bytes, 2 for 64. Then
// address bits 4 to 6 (5) are combined with bits 7 to 9 (8) by an exclusive or.
// The instruction may read at any time until it was waited for, and through the asynchronous proxy. So each thread reads its
// part of the operands twice, at the beginning and at the end, like any reader; both times it must find the same values, and
// the threads that wrote them must have fenced since. Its sums must not be read before the end.
static uintptr_t operand(uint64_t descriptor, int row, int byte, uintptr_t pc) {
  unsigned start = (descriptor & 0x3fff) << 4, apart = (descriptor >> 32 & 0x3fff) << 4, mode = descriptor >> 62;
  unsigned width = mode == 1 ? 128 : 64;
  if (mode != 1 && mode != 2) DIE(pc, "wgmma: swizzle %u is not emulated", mode);
  if (start % (8 * width) >= width) DIE(pc, "wgmma: an operand begins at byte %u, inside of the pattern of its swizzle", start);
  unsigned at = start + row / 8 * apart + row % 8 * width + byte;
  at ^= (at >> 7 & (width / 16 - 1)) << 4;
  return (uintptr_t)cuemu_state.shared + at;
}
static void read_operand(uint64_t descriptor, int row, uintptr_t pc) {
  for (int byte = 0; byte < 32 && watching; byte += 4) {
    uintptr_t at = operand(descriptor, row, byte, pc);
    access(at, 4, false, pc);
    const Cell& cell = last_region->cells[(at - last_region->low) >> last_region->shift];
    if (fibers[cell.writer].fences == cell.write_fences)
      DIE(pc, "wgmma reads byte %lu of shared memory, which thread %u wrote without a fence.proxy.async", at - last_region->low, cell.writer);
  }
}
// What this lane multiplies: rows g and g + 8 of its warp's sixteen, columns 2t, 2t + 1 of each eight; and, so that a warp checks
// everything once, its share of the rest.
static uint64_t look(const Product& product) {
  int lane = (int)current->lane, first = (int)current->warp % 4 * 16;
  uint64_t seen = 14695981039346656037u;
  for (int row = lane; row < 16 + product.columns; row += 32)
    row < 16 ? read_operand(product.a, first + row, product.pc) : read_operand(product.b, row - 16, product.pc);
  auto note = [&](uint64_t descriptor, int row) {
    for (int byte = 0; byte < 32; byte += 4) seen = (seen ^ *(unsigned*)operand(descriptor, row, byte, product.pc)) * 1099511628211u;
  };
  note(product.a, first + lane / 4), note(product.a, first + lane / 4 + 8);
  for (int j = 0; j < product.columns; j += 8) note(product.b, j + lane % 4 * 2), note(product.b, j + lane % 4 * 2 + 1);
  return seen;
}
static void numbers(uint64_t descriptor, int row, int kind, float* to, uintptr_t pc) {
  for (int byte = 0; byte < 32; byte += 4) {
    unsigned word = *(unsigned*)operand(descriptor, row, byte, pc);
    if (kind == 0) *to++ = as_float(word & ~0x1fffu);
    else for (int i = 0; i < 2; i++, word >>= 16) *to++ = kind == 1 ? as_float(word << 16) : half(word & 0xffffu);
  }
}
static void finish(const Product& product) {
  if (look(product) != product.seen) DIE(product.pc, "shared memory was written while the tensor cores read it");
  int depth = product.kind == 0 ? 8 : 16, first = (int)current->warp % 4 * 16, g = current->lane / 4, t = current->lane % 4;
  float a[2][16], b[16];
  for (int i = 0; i < 2; i++) numbers(product.a, first + g + 8 * i, product.kind, a[i], product.pc);
  for (int j = 0; j < product.columns / 8; j++)
    for (int n = 0; n < 2; n++) {
      numbers(product.b, 8 * j + 2 * t + n, product.kind, b, product.pc);
      for (int i = 0; i < 2; i++)
        for (int k = 0; k < depth; k++) current->held[4 * j + 2 * i + n] += a[i][k] * b[k];
    }
}
unsigned cuemu_shared_address(const void* p) { return unsigned((uintptr_t)p - (uintptr_t)cuemu_state.shared); }
void cuemu_proxy_fence() { current->fences++; }
void cuemu_wgmma_fence() { current->products_allowed = true; }
void cuemu_wgmma(float* c, uint64_t a, uint64_t b, int columns, int kind) {
  uintptr_t pc = (uintptr_t)__builtin_return_address(0);
  Fiber& fiber = *current;
  if (!fiber.products_allowed) DIE(pc, "wgmma without a wgmma.fence before it");
  if (fiber.products.empty()) {
    fiber.held.assign(c, c + columns / 2);
    memset(c, 0xFF, columns / 2 * sizeof *c);
  } else if (fiber.products[0].c != c) DIE(pc, "wgmma on other sums than those under way is not emulated");
  Product product{c, a, b, 0, columns, kind, fiber.products_group, pc};
  product.seen = look(product);
  fiber.products.push_back(product);
}
void cuemu_wgmma_commit() { current->products_group++; }
void cuemu_wgmma_wait(int newest) {
  Fiber& fiber = *current;
  size_t done = 0;
  while (done < fiber.products.size() && fiber.products[done].group < fiber.products_group - newest) finish(fiber.products[done++]);
  if (done && done == fiber.products.size()) memcpy(fiber.products[0].c, fiber.held.data(), fiber.held.size() * sizeof(float));
  fiber.products.erase(fiber.products.begin(), fiber.products.begin() + done);
  fiber.products_allowed = false;
}

// An atomic operation orders itself with others of its kind, hence counts as a read: plain writes must not conflict with it.
int cuemu_atomic_or(int* to, int bits) {
  uintptr_t pc = (uintptr_t)__builtin_return_address(0);
  access((uintptr_t)to, 4, false, pc);
  if (watching && last_region && last_region->constant) DIE(pc, "writes to argument %d, which is const", last_region->parameter);
  int before = *to;
  *to = before | bits;
  return before;
}

// cp.async: a write that lasts from its beginning to the wait; other accesses meanwhile are errors. The bytes arrive at the
// wait and not before. The rest of `bytes` is zeros.
void cuemu_copy_async(void* to, const void* from, int bytes, int filled) {
  uintptr_t pc = (uintptr_t)__builtin_return_address(0);
  if (((uintptr_t)to | (filled ? (uintptr_t)from : 0)) & (bytes - 1)) DIE(pc, "cp.async of %d bytes from or to a misaligned address", bytes);
  if (filled) access((uintptr_t)from, filled, false, pc);
  beginning = true;
  access((uintptr_t)to, bytes, true, pc);
  beginning = false;
  current->copies.push_back({to, from, bytes, filled, current->group, pc});
}
void cuemu_copy_commit() { current->group++; }
void cuemu_copy_wait(int newest) {                       // all groups except the newest must have arrived
  auto& copies = current->copies;
  size_t kept = 0;
  for (size_t i = 0; i < copies.size(); i++) {
    Copy copy = copies[i];
    if (copy.group >= current->group - newest) { copies[kept++] = copy; continue; }
    access((uintptr_t)copy.to, copy.bytes, true, copy.pc);
    memcpy(copy.to, copy.from, copy.filled);
    memset((char*)copy.to + copy.filled, 0, copy.bytes - copy.filled);
  }
  copies.resize(kept);
}

// ---------------------------------------------------------------- the hooks of -fsanitize=thread
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define HOOKS(size)                                                                                            \
  void __tsan_read##size(void* p) { access((uintptr_t)p, size, false, (uintptr_t)__builtin_return_address(0)); } \
  void __tsan_write##size(void* p) { access((uintptr_t)p, size, true, (uintptr_t)__builtin_return_address(0)); } \
  void __tsan_unaligned_read##size(void* p) { access((uintptr_t)p, size, false, (uintptr_t)__builtin_return_address(0)); } \
  void __tsan_unaligned_write##size(void* p) { access((uintptr_t)p, size, true, (uintptr_t)__builtin_return_address(0)); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
void __tsan_read_range(void* p, unsigned long n) {
  for (unsigned long i = 0; i < n; i++) access((uintptr_t)p + i, 1, false, (uintptr_t)__builtin_return_address(0));
}
void __tsan_write_range(void* p, unsigned long n) {
  for (unsigned long i = 0; i < n; i++) access((uintptr_t)p + i, 1, true, (uintptr_t)__builtin_return_address(0));
}

// ---- and of -fsanitize=alignment,bounds: a misaligned vector load, an index past the end of a shared array
struct Place { const char* file; uint32_t line, column; };
struct Mismatch { Place place; const void* type; unsigned char log_alignment, kind; };
void __ubsan_handle_type_mismatch_v1(Mismatch* data, uintptr_t address) {
  if (current) DIE(0, "%s:%u: %#lx is not a multiple of %d: misaligned access", data->place.file, data->place.line, (unsigned long)address, 1 << data->log_alignment);
}
void __ubsan_handle_out_of_bounds(Place* place, uintptr_t index) {
  if (current) DIE(0, "%s:%u: index %ld is outside of its array", place->file, place->line, (long)index);
}
}
