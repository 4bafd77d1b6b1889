// A GPU on a CPU: the names of mlp_accel/backends/cupy/device.cuh for g++, as adversarial as the CUDA memory model allows.
//
// Every thread is a fiber that runs until it waits; who runs next is drawn at random. A whole cluster is there at once, but one block
// of it, drawn too, starts only when the others are stuck, and one warp runs only when nothing else can; clusters follow one another. A
// store to another block's memory, or to global memory for another block, arrives at once or only with the next cluster barrier, an asynchronous copy
// at once or only with the wait for it, drawn anew for each; an asynchronous store at any later time, in any order: by the seed as late
// as can be, soon, or at random. Shared memory starts as NaN and has guards around it. A barrier or wait
// can be left out, named by its line, to see whether a test notices.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#define DEVICE inline
#define __global__
#define __launch_bounds__(...)
#define CLUSTERED
#ifndef CLUSTER
#define CLUSTER 1
#endif

namespace shim {
constexpr int WARP_SIZE = 32;
constexpr size_t STACK_BYTES = 32768, GUARD_BYTES = 256;
constexpr unsigned char GUARD = 0xa5;

enum Outcome { DONE = 0, DEADLOCK = 1, OUT_OF_BOUNDS = 2 };
enum Fault { NO_FAULT = 0, REMOVED = 1, WITHIN_BLOCK = 2 }; // the last: a cluster barrier that only the own block keeps

struct Settings {
    unsigned seed;
    bool truncate; // tensor cores cut off, rather than round, what they add up
    int fault_line;
    Fault fault;
};

struct Fiber;
struct Barrier {
    int size = 0;
    std::vector<Fiber*> waiting;
};
struct Warp {
    Barrier barrier;
    uint64_t exchange[2][WARP_SIZE];
    // What the lanes bring to a product or a load of matrices; see exchange for the two sets.
    float a[2][WARP_SIZE][4], b[2][WARP_SIZE][2];
    const unsigned char* rows[2][WARP_SIZE];
};
struct Block {
    int index, rank;
    unsigned char* memory;
    Barrier barrier;
    std::vector<Warp> warps;
};
struct Write {
    void* to;
    unsigned char bytes[16];
    size_t size;
};
// A barrier that counts arrivals, in shared memory: bytes and arrivals that are to come, and phases that have ended.
struct Arrivals {
    int32_t bytes;
    int16_t arrivals, phases;
};
struct Flight { // an asynchronous store on its way
    unsigned char* to;
    unsigned char bytes[16];
    Arrivals* barrier;
};
struct Waiter {
    Fiber* fiber;
    Arrivals* barrier;
    int parity;
};
struct Copy {
    void* to;
    const void* from;
    size_t size;
};
struct Fiber {
    Block* block;
    int thread;
    unsigned exchanges = 0, products = 0;
    bool started = false, done = false;
    std::vector<Write> stores;
    std::vector<Copy> copies;
    jmp_buf place;
    ucontext_t context;
};

inline Settings settings;
inline Fiber* current;
inline jmp_buf scheduler;
inline std::vector<Fiber*> ready, lagging; // the second run only when there is none of the first
inline Warp* laggard;
inline std::vector<Flight> flights;
inline std::vector<Waiter> waiters;
inline Barrier cluster_barrier;
inline std::vector<Block>* cluster;
inline void (*kernel)(void*);
inline void* kernel_state;
inline unsigned random_state;
inline std::vector<std::pair<int, int>> sites; // line of each barrier or wait that ran, and whether it is a cluster barrier

inline unsigned draw() { // xorshift32, Marsaglia 2003
    random_state ^= random_state << 13, random_state ^= random_state >> 17, random_state ^= random_state << 5;
    return random_state >> 4;
}

inline void run_fiber() {
    kernel(kernel_state);
    current->done = true;
    _longjmp(scheduler, 1);
}

inline void resume(Fiber* fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    setcontext(&fiber->context);
}

inline void release(Fiber* fiber) {
    (&fiber->block->warps[fiber->thread / WARP_SIZE] == laggard ? lagging : ready).push_back(fiber);
}

// Arrive, and wait for the rest. Everyone goes on as the draw says.
inline void wait(Barrier& barrier) {
    barrier.waiting.push_back(current);
    if ((int)barrier.waiting.size() == barrier.size) {
        for (Fiber* fiber : barrier.waiting) release(fiber);
        barrier.waiting.clear();
    }
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

inline bool has_ended(const Arrivals* barrier, int parity) { return (barrier->phases & 1) != parity; }

// Ends the phase if nothing is to come any more.
inline void end_phase(Arrivals* barrier) {
    if (barrier->arrivals || barrier->bytes) return;
    barrier->arrivals = 1, ++barrier->phases;
    for (size_t i = 0; i < waiters.size();)
        if (waiters[i].barrier == barrier && has_ended(barrier, waiters[i].parity))
            release(waiters[i].fiber), waiters[i] = waiters.back(), waiters.pop_back();
        else
            ++i;
}

// Lets an asynchronous store arrive, if it is time for one; whether one did. stuck: nobody can go on without it.
inline bool land(bool stuck) {
    enum { AT_RANDOM, LATE, SOON };
    const unsigned pace = settings.seed % 3;
    if (flights.empty() || (!stuck && (pace == LATE || (pace == AT_RANDOM && draw() % 8)))) return false;
    std::swap(flights[draw() % flights.size()], flights.back());
    const Flight flight = flights.back();
    flights.pop_back();
    memcpy(flight.to, flight.bytes, sizeof flight.bytes);
    flight.barrier->bytes -= sizeof flight.bytes;
    end_phase(flight.barrier);
    return true;
}

inline Fault fault_at(int line, bool of_cluster = false) {
    for (auto& site : sites)
        if (site.first == line) return line == settings.fault_line ? settings.fault : NO_FAULT;
    sites.push_back({line, of_cluster});
    return line == settings.fault_line ? settings.fault : NO_FAULT;
}

inline Warp& warp() { return current->block->warps[current->thread / WARP_SIZE]; }
inline int lane() { return current->thread % WARP_SIZE; }

inline void store(void* to, const void* from, size_t size) {
    if (draw() % 2) {
        memcpy(to, from, size);
        return;
    }
    Write write{to, {}, size};
    memcpy(write.bytes, from, size);
    current->stores.push_back(write);
}

// Run kernel() with `blocks` blocks in clusters of `cluster_size`.
template <class Kernel>
int launch(Kernel body, int blocks, int cluster_size, int threads, size_t memory_bytes, const Settings& wanted) {
    settings = wanted, random_state = wanted.seed * 2654435761u + 1;
    kernel = [](void* state) { (*static_cast<Kernel*>(state))(); }, kernel_state = &body;
    const int count = cluster_size * threads;
    static std::vector<unsigned char> stacks;
    if (stacks.size() < STACK_BYTES * count) stacks.resize(STACK_BYTES * count);
    int outcome = DONE;
    for (int first = 0; first < blocks && outcome == DONE; first += cluster_size) {
        std::vector<std::vector<unsigned char>> memories(cluster_size);
        std::vector<Block> group(cluster_size);
        std::vector<Fiber> fibers(count);
        cluster = &group, cluster_barrier = Barrier{count, {}}, ready.clear(), lagging.clear(), flights.clear(), waiters.clear();
        for (int rank = 0; rank < cluster_size; ++rank) {
            memories[rank].assign(memory_bytes + 2 * GUARD_BYTES, GUARD);
            unsigned char* start = memories[rank].data() + GUARD_BYTES;
            start += -(uintptr_t)start % 128;
            memset(start, 0xff, memory_bytes); // NaN
            group[rank].index = first + rank, group[rank].rank = rank, group[rank].memory = start;
            group[rank].barrier.size = threads;
            group[rank].warps.resize(threads / WARP_SIZE);
            for (auto& warp : group[rank].warps) warp.barrier.size = WARP_SIZE;
        }
        const int latecomer = draw() % cluster_size;
        auto& warps = group[draw() % cluster_size].warps;
        laggard = &warps[draw() % warps.size()];
        std::vector<Fiber*> late;
        for (int i = 0; i < count; ++i) {
            Fiber& fiber = fibers[i];
            fiber.block = &group[i / threads], fiber.thread = i % threads;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = stacks.data() + STACK_BYTES * i;
            fiber.context.uc_stack.ss_size = STACK_BYTES;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, run_fiber, 0);
            if (i / threads == latecomer)
                late.push_back(&fiber);
            else
                release(&fiber);
        }
        int left = count;
        while (true) {
            land(false);
            if (ready.empty()) ready.swap(lagging);
            if (ready.empty()) ready.swap(late);
            if (ready.empty() && land(true)) continue;
            if (ready.empty()) break;
            std::swap(ready[draw() % ready.size()], ready.back());
            Fiber* fiber = ready.back();
            ready.pop_back();
            resume(fiber);
            left -= fiber->done;
        }
        if (left || !flights.empty()) outcome = DEADLOCK; // the second: a store to a block that has ended
        for (int rank = 0; rank < cluster_size; ++rank) {
            const auto& memory = memories[rank];
            const size_t start = group[rank].memory - memory.data();
            for (size_t i = 0; i < memory.size(); ++i)
                if ((i < start || i >= start + memory_bytes) && memory[i] != GUARD) outcome = OUT_OF_BOUNDS;
        }
    }
    return outcome;
}
} // namespace shim

inline int thread_index() { return shim::current->thread; }
inline int block_index() { return shim::current->block->index; }
inline int cluster_rank() { return shim::current->block->rank; }
inline int min(int a, int b) { return a < b ? a : b; }

template <class T> T& shared_memory() { return *reinterpret_cast<T*>(shim::current->block->memory); }

inline void warp_sync(int line = __builtin_LINE()) {
    if (shim::fault_at(line) == shim::NO_FAULT) shim::wait(shim::warp().barrier);
}
inline void block_sync(int line = __builtin_LINE()) {
    if (shim::fault_at(line) == shim::NO_FAULT) shim::wait(shim::current->block->barrier);
}
inline void cluster_sync(int line = __builtin_LINE()) {
    const shim::Fault fault = shim::fault_at(line, CLUSTER > 1);
    if (fault == shim::REMOVED) return;
    if (fault == shim::WITHIN_BLOCK) return shim::wait(shim::current->block->barrier);
    for (auto& write : shim::current->stores) memcpy(write.to, write.bytes, write.size);
    shim::current->stores.clear();
    shim::wait(shim::cluster_barrier);
}

// Blocks of other clusters follow one another, and so they come here in their order.
inline bool last_block(unsigned* counter, int blocks) {
    *counter = *counter + 1 == (unsigned)blocks ? 0 : *counter + 1;
    return *counter == 0;
}

// The same place in the memory of another block.
template <class T> T* in_block(T* own, int rank) {
    const auto offset = reinterpret_cast<unsigned char*>(own) - shim::current->block->memory;
    return reinterpret_cast<T*>((*shim::cluster)[rank].memory + offset);
}
inline void store_remote(float* own, int rank, float a) { shim::store(in_block(own, rank), &a, sizeof a); }
inline void store_remote(float* own, int rank, float a, float b) {
    const float pair[2] = {a, b};
    if (reinterpret_cast<uintptr_t>(own) % 8) abort(); // as the hardware would
    shim::store(in_block(own, rank), pair, sizeof pair);
}

template <class T> void store_for_cluster(T* to, T value) { shim::store(to, &value, sizeof value); }

inline void copy_async(void* to, const void* from, size_t size) {
    if (reinterpret_cast<uintptr_t>(to) % size || reinterpret_cast<uintptr_t>(from) % size) abort(); // as the hardware would
    if (shim::draw() % 2)
        memcpy(to, from, size);
    else
        shim::current->copies.push_back({to, from, size});
}
inline void copy_async16(void* to, const void* from) { copy_async(to, from, 16); }
inline void copy_async4(void* to, const void* from) { copy_async(to, from, 4); }
inline void copy_wait(int line = __builtin_LINE()) {
    if (shim::fault_at(line) != shim::NO_FAULT) return;
    for (auto& copy : shim::current->copies) memcpy(copy.to, copy.from, copy.size);
    shim::current->copies.clear();
}

using ArrivalBarrier = unsigned long long;
inline shim::Arrivals* arrivals_at(ArrivalBarrier* barrier) { return reinterpret_cast<shim::Arrivals*>(barrier); }
inline void arrival_init(ArrivalBarrier* barrier) { *arrivals_at(barrier) = {0, 1, 0}; }
inline void arrival_expect(ArrivalBarrier* barrier, int bytes) {
    auto* arrivals = arrivals_at(barrier);
    arrivals->bytes += bytes;
    if (--arrivals->arrivals < 0) arrivals->arrivals = INT16_MAX; // one too many: the phase never ends
    shim::end_phase(arrivals);
}
inline void arrival_wait(ArrivalBarrier* barrier, int parity, int line = __builtin_LINE()) {
    if (shim::fault_at(line) != shim::NO_FAULT || shim::has_ended(arrivals_at(barrier), parity)) return;
    shim::waiters.push_back({shim::current, arrivals_at(barrier), parity});
    if (!_setjmp(shim::current->place)) _longjmp(shim::scheduler, 1);
}
inline void store_async(void* own, int rank, const unsigned (&words)[4], ArrivalBarrier* barrier) {
    if (reinterpret_cast<uintptr_t>(own) % 16) abort(); // as the hardware would
    shim::Flight flight{in_block(static_cast<unsigned char*>(own), rank), {}, arrivals_at(in_block(barrier, rank))};
    memcpy(flight.bytes, words, 16);
    shim::flights.push_back(flight);
}

// Exchanges keep two sets of values: a lane comes to the next exchange but one only when all have read this one.
template <class T> T exchange(T value, int from) {
    auto& values = shim::warp().exchange[shim::current->exchanges++ % 2];
    memcpy(&values[shim::lane()], &value, sizeof value);
    shim::wait(shim::warp().barrier);
    memcpy(&value, &values[from], sizeof value);
    return value;
}
template <class T> T shuffle_xor(T value, int mask) { return exchange(value, shim::lane() ^ mask); }
template <class T> T shuffle(T value, int lane) { return exchange(value, lane); }
inline unsigned ballot(bool vote) {
    unsigned votes = 0;
    auto& values = shim::warp().exchange[shim::current->exchanges++ % 2];
    values[shim::lane()] = vote;
    shim::wait(shim::warp().barrier);
    for (int i = 0; i < shim::WARP_SIZE; ++i) votes |= (unsigned)values[i] << i;
    return votes;
}
inline int first_bit(unsigned bits) { return __builtin_ffs((int)bits) - 1; }

inline unsigned to_tf32(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu; // to nearest, halves away from zero
}
inline float tf32_value(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

inline unsigned float_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

inline float half_value(unsigned bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY) : exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
    return bits >> 15 & 1 ? -size : size;
}
inline unsigned half_bits_of(float value) { // to nearest, ties to even
    const unsigned sign = signbit(value) ? 0x8000u : 0;
    const float size = fabsf(value);
    if (size != size) return 0x7fffu;
    if (size >= 65520) return sign | 0x7c00u;
    if (size == 0) return sign;
    int exponent = ilogbf(size);
    if (exponent < -14) exponent = -14;
    const int fraction = (int)nearbyintf(ldexpf(size, 10 - exponent)); // 1024 to 2048, or less if subnormal
    return sign | (unsigned)(((exponent + 14) << 10) + fraction);      // a carry goes into the exponent
}
inline unsigned pack_halves(float a, float b) { return half_bits_of(a) | half_bits_of(b) << 16; }
inline void unpack_halves(unsigned word, float& a, float& b) { a = half_value(word & 0xffff), b = half_value(word >> 16); }
inline float exponential2(float x) { return exp2f(x); }
inline float reciprocal(float x) { return 1 / x; }

// The memory is read when all lanes are there, as the hardware does.
inline void load_matrices(unsigned (&d)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16) abort();
    auto& warp = shim::warp();
    const int set = shim::current->products++ % 2, lane = shim::lane(), group = lane / 4, item = lane % 4;
    warp.rows[set][lane] = static_cast<const unsigned char*>(row);
    shim::wait(warp.barrier);
    for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t pair[2];
        for (int e = 0; e < 2; ++e) {
            const int of_row = transposed ? 2 * item + e : group, column = transposed ? group : 2 * item + e;
            memcpy(&pair[e], warp.rows[set][8 * matrix + of_row] + 2 * column, 2);
        }
        d[matrix] = pair[0] | (unsigned)pair[1] << 16;
    }
}
inline void load_matrices(unsigned (&d)[4], const void* row) { load_matrices(d, row, false); }
inline void load_matrices_transposed(unsigned (&d)[4], const void* row) { load_matrices(d, row, true); }

inline float to_float(double exact) {
    const float rounded = (float)exact;
    return shim::settings.truncate && fabs((double)rounded) > fabs(exact) ? nextafterf(rounded, 0) : rounded;
}

inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    auto& warp = shim::warp();
    const int set = shim::current->products++ % 2, lane = shim::lane(), group = lane / 4, item = lane % 4;
    for (int i = 0; i < 4; ++i) warp.a[set][lane][i] = tf32_value(a[i] & ~0x1fffu);
    for (int i = 0; i < 2; ++i) warp.b[set][lane][i] = tf32_value(b[i] & ~0x1fffu);
    shim::wait(warp.barrier);
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * item + i % 2, lower = i / 2;
        double sum = d[i];
        for (int k = 0; k < 8; ++k)
            sum += (double)warp.a[set][group * 4 + k % 4][lower + 2 * (k / 4)] * warp.b[set][column * 4 + k % 4][k / 4];
        d[i] = to_float(sum);
    }
}

inline void mma_half(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    auto& warp = shim::warp();
    const int set = shim::current->products++ % 2, lane = shim::lane(), group = lane / 4, item = lane % 4;
    memcpy(warp.a[set][lane], a, sizeof a);
    memcpy(&warp.b[set][lane][0], &b0, 4), memcpy(&warp.b[set][lane][1], &b1, 4);
    shim::wait(warp.barrier);
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * item + i % 2, lower = i / 2;
        double sum = d[i];
        for (int k = 0; k < 16; k += 2) {
            float left[2], right[2];
            unpack_halves(float_bits(warp.a[set][group * 4 + k % 8 / 2][lower + 2 * (k / 8)]), left[0], left[1]);
            unpack_halves(float_bits(warp.b[set][column * 4 + k % 8 / 2][k / 8]), right[0], right[1]);
            sum += (double)left[0] * right[0] + (double)left[1] * right[1];
        }
        d[i] = to_float(sum);
    }
}

inline float byte_as_float(unsigned word, int index) { return (float)(word >> 8 * index & 0xff); }

// For the tests -------------------------------------------------------------------------------------------------------------------

namespace shim {
enum { WRONG_ARGUMENTS = 3 };

template <class... P, size_t... I>
int invoke(void (*kernel)(P...), void** arguments, std::index_sequence<I...>, int blocks, int threads, size_t memory, const Settings& wanted) {
    auto body = [=] { kernel(*static_cast<P*>(arguments[I])...); };
    return launch(body, blocks, CLUSTER, threads, memory, wanted);
}

// As cuLaunchKernel takes them: addresses of the arguments. Their sizes are checked, which the driver cannot do.
template <class... P>
int invoke(void (*kernel)(P...), void** arguments, const int* sizes, int count, int blocks, int threads, int memory, const Settings& wanted) {
    const int needed[] = {(int)sizeof(P)...};
    if (count != (int)sizeof...(P) || blocks % CLUSTER || memcmp(needed, sizes, sizeof needed)) return WRONG_ARGUMENTS;
    return invoke(kernel, arguments, std::index_sequence_for<P...>(), blocks, threads, memory, wanted);
}
} // namespace shim

#define SHIM_EXPORT(kernel)                                                                                                        \
    extern "C" int emulate_##kernel(void** arguments, const int* sizes, int count, int blocks, int threads, int memory,            \
                                    unsigned seed, int truncate, int fault_line, int fault) {                                      \
        return shim::invoke(kernel, arguments, sizes, count, blocks, threads, memory,                                              \
                            {seed, truncate != 0, fault_line, (shim::Fault)fault});                                                \
    }

// Where barriers and waits have run, and which of them are a cluster's.
extern "C" int barrier_sites(int* lines, int* of_cluster, int room) {
    for (int i = 0; i < (int)shim::sites.size() && i < room; ++i)
        lines[i] = shim::sites[i].first, of_cluster[i] = shim::sites[i].second;
    return (int)shim::sites.size();
}
