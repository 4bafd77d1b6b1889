// What the kernels of the ops share: which element of the arrays a thread has. The host defines THREADS, those of a block.
constexpr int WARPS = THREADS / WARP;
static_assert(THREADS % WARP == 0, "a block is made of whole warps");

DEVICE long long element() { return (long long)block_index() * THREADS + thread_index(); }
DEVICE long long column_of(long long i, int width) { return i >> 32 ? i % width : (unsigned)i % (unsigned)width; }
DEVICE long long row_of(long long i, int width) { return i >> 32 ? i / width : (unsigned)i / (unsigned)width; }

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
