// What the kernels of the path `cluster` share: the arrays they are given, and where the small parameters (all but the first layer's
// weights) lie, in those arrays and in shared memory.
//
// The host defines INPUTS, HIDDEN, CLASSES, BATCH, CLUSTER, WARPS, SHARED_BYTES, what common.cuh needs, and the layout: SAMPLE_BYTES,
// the size of a value of a sample; UNITS, the hidden units with padding; CLASS_STRIDE, from one unit's output weights to the next.
#if SAMPLE_BYTES == 1
using Sample = uint8;
#elif SAMPLE_BYTES == 2
using Sample = unsigned short; // the bits of a half
#else
using Sample = float;
#endif
constexpr int THREADS = WARPS * WARP;
constexpr int CHUNKS = ceil_div(INPUTS, TILE), PIXELS = TILE * CHUNKS; // a sample, padded with zeros
constexpr int ROWS = round_up(BATCH, TILE);                            // samples of a minibatch, padded
constexpr int OWN_ROWS = ceil_div(ROWS, CLUSTER);                      // samples of a block
constexpr int PARAMETERS = INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES;

// Places in the small parameters, of which each block owns OWN_SMALL, whole quads.
constexpr int OUTPUT_BIAS = UNITS * CLASS_STRIDE; // the output weights come first
constexpr int HIDDEN_BIAS = OUTPUT_BIAS + CLASS_STRIDE;
constexpr int SMALL = round_up(HIDDEN_BIAS + UNITS, 4);
constexpr int OWN_SMALL = 4 * ceil_div(SMALL / 4, CLUSTER);

// What a cluster trains on, which is the same for all networks, and what belongs to its own network.
struct ClusterArrays {
    const Sample* images; // (n, PIXELS)
    const int* labels;    // (n,)
    const int* order;     // (n,); this and all that follows is of one network
    const float* scalars; // (steps, SCALARS)
    float* state;         // (1 + SLOTS, PARAMETERS): the parameters, layer by layer, weights first, and each of their slots
    float* losses;        // (n,) in the order of training
    uint8* hits;          // (n,)
    double *batch_losses, *batch_hits; // (steps,)
    int n;

    DEVICE int steps() const { return ceil_div(n, BATCH); }
    DEVICE int rows(int step) const { return min(BATCH, n - step * BATCH); }

    // Loss of a sample, and whether the answer was right.
    DEVICE void report(int step, int row, float loss, bool hit) const {
        store_for_cluster(losses + (size_t)step * BATCH + row, loss);
        store_for_cluster(hits + (size_t)step * BATCH + row, (uint8)hit);
    }

    DEVICE ClusterArrays of_network(size_t network) const {
        const size_t steps = this->steps(), samples = network * n;
        return {images, labels, order + samples, scalars + network * steps * SCALARS, state + network * (1 + SLOTS) * PARAMETERS,
                losses + samples, hits + samples, batch_losses + network * steps, batch_hits + network * steps, n};
    }
};

// Place of the i-th small parameter among all parameters; -1 for padding.
DEVICE int place_of_small(int i) {
    if (i >= HIDDEN_BIAS) return i - HIDDEN_BIAS < HIDDEN ? INPUTS * HIDDEN + i - HIDDEN_BIAS : -1;
    const int unit = i / CLASS_STRIDE, label = i % CLASS_STRIDE; // the output bias lies where the weights of unit UNITS would
    if (label >= CLASSES || (unit >= HIDDEN && unit < UNITS)) return -1;
    return INPUTS * HIDDEN + HIDDEN + (unit < HIDDEN ? unit : HIDDEN) * CLASSES + label;
}

// Calls visit(shared, global, own) for each small parameter, and for the slots of those that the block owns.
template <class Memory, class Visit> DEVICE void visit_small(Memory& memory, const ClusterArrays& arrays, int rank, Visit visit) {
    for (int i = thread_index(); i < SMALL; i += THREADS) {
        const int place = place_of_small(i);
        if (place < 0) continue;
        const bool own = i / OWN_SMALL == rank;
        visit(memory.small[i], arrays.state[place], own);
        for (int slot = 0; own && slot < SLOTS; ++slot)
            visit(memory.own_small[CLUSTER + slot][i % OWN_SMALL], arrays.state[(size_t)(1 + slot) * PARAMETERS + place], own);
    }
}

template <class Memory> DEVICE void clear(Memory& memory) {
    unsigned* words = reinterpret_cast<unsigned*>(&memory);
    for (int i = thread_index(); i < (int)(sizeof(Memory) / 4); i += THREADS) words[i] = 0;
}

// After the last step: the sums of each minibatch, one warp of the cluster for each.
DEVICE void sum_minibatches(const ClusterArrays& arrays, int rank, int warp, int lane) {
    for (int step = rank * WARPS + warp; step < arrays.steps(); step += CLUSTER * WARPS)
        sum_minibatch(arrays.losses, arrays.hits, step * BATCH, min(arrays.n, (step + 1) * BATCH), lane, arrays.batch_losses + step,
                      arrays.batch_hits + step);
}

#define KERNEL extern "C" __global__ void CLUSTERED __launch_bounds__(THREADS, 1)

// Trains gridDim / CLUSTER networks on every minibatch of their order once, in place: train(arrays of one network).
//
// images (n, PIXELS), labels (n,); for each network: orders (n,), scalars (steps, SCALARS), states (1 + SLOTS, PARAMETERS).
// Filled for each network: losses, hits (n,), and their sums by minibatch.
#define CLUSTER_KERNEL(name, train)                                                                                                \
    KERNEL name(const Sample* images, const int* labels, const int* orders, const float* scalars, float* states, float* losses,    \
                uint8* hits, double* batch_losses, double* batch_hits, int n) {                                                    \
        const ClusterArrays arrays = {images, labels, orders, scalars, states, losses, hits, batch_losses, batch_hits, n};         \
        train(arrays.of_network(block_index() / CLUSTER));                                                                         \
    }
