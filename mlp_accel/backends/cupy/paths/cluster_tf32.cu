// One launch trains whole networks for an epoch: each cluster of thread blocks holds one network with one hidden layer in its shared
// memory. Needs sm_90 (a cluster of one block: sm_80). For what cluster_half.cu does not take: wide networks,
// many classes, floating samples.
//
// The inputs are split over the blocks of the cluster, the samples of a minibatch too, and so are the small parameters (all but the
// first layer's weights). What a block is responsible for is called its own. A delta is the error at a layer: the derivative of the
// loss by what goes into its activation. A step:
//   1. each block multiplies all samples by its slice of the first layer and sends the partial sums of each sample to the block
//      that owns the sample                                                                             -> cluster barrier
//   2. each block adds them up for its samples, finishes forward and backward, and sends the delta of the hidden layer to all;
//      its part of the gradient of each small parameter goes to the block that owns the parameter      -> cluster barrier
//   3. each block updates its slice of the first layer, and its small parameters, which it sends to all: they are read after the
//      next cluster barrier. What the optimiser remembers of a parameter (its slots) lies where the parameter is updated.
// Meanwhile the next minibatch is copied to a second buffer. Every sum is taken in a fixed order.
constexpr int SLICE = TILE * ceil_div(CHUNKS, CLUSTER); // inputs of a block
constexpr int SLICES = ceil_div(PIXELS, SLICE);         // blocks that have inputs
constexpr bool BYTES = sizeof(Sample) == 1; // pixels, not scaled yet; otherwise floats
constexpr float INPUT_SCALE = BYTES ? PIXEL_SCALE : 1.0f;
// Strides that spread a lane's reads over the memory banks: see load_a and load_b below.
constexpr int IMAGE_STRIDE = BYTES ? PIECE * (SLICE / PIECE | 1) : SLICE + 4;
constexpr int DELTA_STRIDE = UNITS + (UNITS / 8 % 2 ? 0 : 8);
constexpr int WEIGHT_STRIDE = BYTES ? UNITS + 2 : DELTA_STRIDE;

struct alignas(16) ClusterMemory {
    Sample images[2][ROWS][IMAGE_STRIDE];       // this minibatch and the next
    float partial_sums[SLICES][OWN_ROWS][UNITS];
    float weights[1 + SLOTS][SLICE][WEIGHT_STRIDE]; // of the first layer, and their slots
    float delta[ROWS][DELTA_STRIDE];            // of the hidden layer, of all samples
    // The outputs of the hidden units and, if SLOPE_OF_INPUT, the sums that go into their activation.
    float hidden[1 + SLOPE_OF_INPUT][OWN_ROWS][UNITS];
    float own_delta[OWN_ROWS][UNITS];           // of the hidden layer, of the block's samples
    float output_delta[OWN_ROWS][CLASS_STRIDE];
    float small[SMALL];
    float own_small[CLUSTER + SLOTS][OWN_SMALL]; // of the block's: gradients over the samples of each block, then the slots
    int labels[2][OWN_ROWS];
};
static_assert(sizeof(ClusterMemory) == SHARED_BYTES, "the host computes the shared memory in another way");

// How many tiles of columns a warp computes at a time, for one tile of rows: 1, 2 or 4. A larger number means that each value of A is
// loaded for more products, but also that there are fewer jobs, so that some warps may have none. The number that is taken is the one
// with which the warp that has the most to do has the least. Its work is counted in loads: 1 for A and n for B in each job.
DEVICE constexpr int columns_at_once(int row_tiles, int column_tiles) {
    int best = 1, least = 1 << 30;
    for (int n = 1; n <= 4; n *= 2) {
        if (column_tiles % n) continue;
        const int work = ceil_div(row_tiles * (column_tiles / n), WARPS) * (1 + n);
        if (work < least) best = n, least = work;
    }
    return best;
}

// Copies the next minibatch while the network trains on this one. The numbers of its samples are read one step earlier, so that the
// copy does not wait for them.
struct Fetcher {
    static constexpr int LENGTH = PIECE / sizeof(Sample); // of a piece of PIECE bytes
    static constexpr int PIECES = SLICE / LENGTH;         // of the block's part of an image
    static constexpr int FETCHES = ceil_div(BATCH * PIECES, THREADS);
    static constexpr int LABEL_FETCHES = ceil_div(OWN_ROWS, THREADS);
    int samples[FETCHES], labeled[LABEL_FETCHES]; // -1: none

    DEVICE void look_up(const ClusterArrays& arrays, int rank, int step) {
        const int rows = arrays.rows(step);
        const int* order = arrays.order + (size_t)step * BATCH;
#pragma unroll
        for (int i = 0; i < FETCHES; ++i) {
            const int piece = i * THREADS + thread_index(), row = piece / PIECES;
            const bool real = row < rows && rank * SLICE + piece % PIECES * LENGTH < PIXELS;
            samples[i] = real ? order[row] : -1;
        }
#pragma unroll
        for (int i = 0; i < LABEL_FETCHES; ++i) {
            const int own_row = i * THREADS + thread_index(), row = rank * OWN_ROWS + own_row;
            labeled[i] = own_row < OWN_ROWS && row < rows ? order[row] : -1;
        }
    }

    DEVICE void start(ClusterMemory& memory, const ClusterArrays& arrays, int rank, int buffer) const {
#pragma unroll
        for (int i = 0; i < FETCHES; ++i) {
            const int piece = i * THREADS + thread_index(), row = piece / PIECES, column = piece % PIECES * LENGTH;
            if (samples[i] >= 0)
                copy_async16(&memory.images[buffer][row][column], arrays.images + (size_t)samples[i] * PIXELS + rank * SLICE + column);
        }
#pragma unroll
        for (int i = 0; i < LABEL_FETCHES; ++i)
            if (labeled[i] >= 0) copy_async4(&memory.labels[buffer][i * THREADS + thread_index()], arrays.labels + labeled[i]);
    }
};

// 1. The first layer, before scale, bias and activation: this block's inputs, all samples.
DEVICE void send_partial_sums(ClusterMemory& memory, int rank, int buffer, int warp, Lane lane) {
    constexpr int N = columns_at_once(ROWS / TILE, UNITS / TILE_COLUMNS), COLUMNS = N * TILE_COLUMNS;
    for (int job = warp; job < ROWS / TILE * (UNITS / COLUMNS); job += WARPS) {
        const int row = job / (UNITS / COLUMNS) * TILE + lane.group, column = job % (UNITS / COLUMNS) * COLUMNS;
        float sum[N][4] = {};
        // Of pixels a lane reads four neighbours at a time: inputs 4t ... 4t + 3 of sixteen, which serve two products.
        auto place = [&](int k) { return BYTES ? k / 2 * 16 + 4 * lane.item + k % 2 * 2 : 8 * k + lane.item; };
        constexpr int NEXT = BYTES ? 1 : 4; // from a lane's first input of a product to its second
        auto load_a = [&](int k, float (&a)[4]) {
            const Sample *upper = &memory.images[buffer][row][place(k)], *lower = &memory.images[buffer][row + 8][place(k)];
            if constexpr (BYTES) {
                const int byte = k % 2 * 2;
                const unsigned four = *reinterpret_cast<const unsigned*>(upper - byte), other = *reinterpret_cast<const unsigned*>(lower - byte);
                a[0] = byte_as_float(four, byte), a[1] = byte_as_float(other, byte);
                a[2] = byte_as_float(four, byte + 1), a[3] = byte_as_float(other, byte + 1);
            } else {
                a[0] = upper[0], a[1] = lower[0], a[2] = upper[NEXT], a[3] = lower[NEXT];
            }
        };
        auto load_b = [&](int k, int n, float (&b)[2]) {
            const int unit = column + n * TILE_COLUMNS + lane.group;
            b[0] = memory.weights[0][place(k)][unit], b[1] = memory.weights[0][place(k) + NEXT][unit];
        };
        multiply<N, BYTES>(sum, 0, SLICE / 8, load_a, load_b);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int unit = column + n * TILE_COLUMNS + 2 * lane.item;
            store_remote(&memory.partial_sums[rank][row % OWN_ROWS][unit], row / OWN_ROWS, sum[n][0], sum[n][1]);
            store_remote(&memory.partial_sums[rank][(row + 8) % OWN_ROWS][unit], (row + 8) / OWN_ROWS, sum[n][2], sum[n][3]);
        }
    }
}

// 2a. One of the block's own samples from the hidden layer to the loss and back, by a warp.
DEVICE void train_sample(ClusterMemory& memory, const ClusterArrays& arrays, int rank, int buffer, int own_row, int step, int lane) {
    const int row = rank * OWN_ROWS + own_row, rows = arrays.rows(step);
    float *hidden = memory.hidden[0][own_row], *slope_input = memory.hidden[SLOPE_OF_INPUT][own_row];
    const bool real = row < rows;
    for (int unit = lane; unit < HIDDEN; unit += WARP) {
        float z = 0;
#pragma unroll
        for (int slice = 0; slice < SLICES; ++slice) z += memory.partial_sums[slice][own_row][unit];
        z = z * INPUT_SCALE + memory.small[HIDDEN_BIAS + unit];
        if (SLOPE_OF_INPUT) slope_input[unit] = z;
        hidden[unit] = real ? activate(z) : 0;
    }
    warp_sync();
    float scores[CLASSES_PER_LANE];
#pragma unroll
    for (int i = 0; i < CLASSES_PER_LANE; ++i) {
        const int label = i * WARP + lane < CLASSES ? i * WARP + lane : 0;
        scores[i] = memory.small[OUTPUT_BIAS + label];
        for (int unit = 0; unit < HIDDEN; ++unit) scores[i] += hidden[unit] * memory.small[unit * CLASS_STRIDE + label];
    }
    const Classified sample(scores, lane, real ? memory.labels[buffer][own_row] : 0, rows);
    if (real && lane == 0) arrays.report(step, row, sample.loss, sample.hit);
#pragma unroll
    for (int i = 0; i < CLASSES_PER_LANE; ++i)
        if (i * WARP + lane < CLASSES) memory.output_delta[own_row][i * WARP + lane] = real ? scores[i] : 0;
    warp_sync();
    for (int unit = lane; unit < HIDDEN; unit += WARP) {
        float delta = 0;
        for (int label = 0; label < CLASSES; ++label)
            delta += memory.output_delta[own_row][label] * memory.small[unit * CLASS_STRIDE + label];
        delta = real ? times_slope(delta, slope_input[unit]) : 0;
        memory.own_delta[own_row][unit] = delta;
        if (row < ROWS)
            for (int block = 0; block < SLICES; ++block) store_remote(&memory.delta[row][unit], block, delta);
    }
}

// 2b. Gradients of the small parameters over the block's samples.
DEVICE void send_small_gradients(ClusterMemory& memory, int rank) {
    for (int i = thread_index(); i < SMALL; i += THREADS) {
        if (place_of_small(i) < 0) continue;
        float sum = 0;
        if (i >= HIDDEN_BIAS) {
            for (int row = 0; row < OWN_ROWS; ++row) sum += memory.own_delta[row][i - HIDDEN_BIAS];
        } else if (i >= OUTPUT_BIAS) {
            for (int row = 0; row < OWN_ROWS; ++row) sum += memory.output_delta[row][i - OUTPUT_BIAS];
        } else {
            const int unit = i / CLASS_STRIDE, label = i % CLASS_STRIDE;
            for (int row = 0; row < OWN_ROWS; ++row) sum += memory.hidden[0][row][unit] * memory.output_delta[row][label];
        }
        store_remote(&memory.own_small[rank][i % OWN_SMALL], i / OWN_SMALL, sum);
    }
}

// 3a. The block's own small parameters. The last threads begin, since the first ones have more to do in 3b.
DEVICE void update_small(ClusterMemory& memory, int rank, const Scalars& scalars) {
    const int first = rank * OWN_SMALL, end = min(SMALL, first + OWN_SMALL);
    for (int i = first + THREADS - 1 - thread_index(); i < end; i += THREADS) {
        if (place_of_small(i) < 0) continue; // padding stays 0
        float gradient = 0;
#pragma unroll
        for (int block = 0; block < CLUSTER; ++block) gradient += memory.own_small[block][i - first];
        float* slots = &memory.own_small[SLOTS > 0 ? CLUSTER : 0][i - first];
        const float updated = scalars.updated(memory.small[i], gradient, slots, OWN_SMALL);
        for (int block = 0; block < CLUSTER; ++block) store_remote(&memory.small[i], block, updated);
    }
}

// 3b. The block's slice of the first layer, whose gradient is images.T @ delta.
DEVICE void update_weights(ClusterMemory& memory, int rank, int buffer, const Scalars& scalars, int warp, Lane lane) {
    constexpr int N = columns_at_once(SLICE / TILE, UNITS / TILE_COLUMNS), COLUMNS = N * TILE_COLUMNS;
    for (int job = warp; job < SLICE / TILE * (UNITS / COLUMNS); job += WARPS) {
        // Rows g and g + 8 of the tile are the neighbouring inputs 2g and 2g + 1, which a lane reads at once.
        const int place = job / (UNITS / COLUMNS) * TILE + 2 * lane.group, column = job % (UNITS / COLUMNS) * COLUMNS;
        float sum[N][4] = {};
        auto load_a = [&](int k, float (&a)[4]) {
            const int row = 8 * k + lane.item;
            const Sample *left = &memory.images[buffer][row][place], *right = &memory.images[buffer][row + 4][place];
            if constexpr (BYTES) {
                const unsigned two = *reinterpret_cast<const unsigned short*>(left), others = *reinterpret_cast<const unsigned short*>(right);
                a[0] = byte_as_float(two, 0), a[1] = byte_as_float(two, 1);
                a[2] = byte_as_float(others, 0), a[3] = byte_as_float(others, 1);
            } else {
                a[0] = left[0], a[1] = left[1], a[2] = right[0], a[3] = right[1];
            }
        };
        auto load_b = [&](int k, int n, float (&b)[2]) {
            const int row = 8 * k + lane.item, unit = column + n * TILE_COLUMNS + lane.group;
            b[0] = memory.delta[row][unit], b[1] = memory.delta[row + 4][unit];
        };
        multiply<N, BYTES>(sum, 0, ROWS / 8, load_a, load_b);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const int unit = column + n * TILE_COLUMNS + 2 * lane.item;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                // Padding has no gradient: by p - u * g it stays 0, but another rule may make something else of it.
                if (RATE_INDEX < 0 && (rank * SLICE + place + i / 2 >= INPUTS || unit + i % 2 >= HIDDEN)) continue;
                float* weight = &memory.weights[0][place + i / 2][unit + i % 2];
                *weight = scalars.updated(*weight, sum[n][i], weight + SLICE * WEIGHT_STRIDE, SLICE * WEIGHT_STRIDE);
            }
        }
    }
}

// Calls visit(shared, global, own) for each number that the block holds: its slice of the first layer with the slots, all the small
// parameters, of which some are its own, and the slots of those.
template <class Visit> DEVICE void visit_network(ClusterMemory& memory, const ClusterArrays& arrays, int rank, Visit visit) {
    for (int i = thread_index(); i < (1 + SLOTS) * SLICE * HIDDEN; i += THREADS) {
        const int plane = i / (SLICE * HIDDEN), input = i / HIDDEN % SLICE, unit = i % HIDDEN;
        const size_t place = (size_t)plane * PARAMETERS + (rank * SLICE + input) * HIDDEN + unit;
        if (rank * SLICE + input < INPUTS) visit(memory.weights[plane][input][unit], arrays.state[place], true);
    }
    visit_small(memory, arrays, rank, visit);
}

DEVICE void train(const ClusterArrays& arrays) {
    ClusterMemory& memory = shared_memory<ClusterMemory>();
    const int rank = cluster_rank(), warp = thread_index() / WARP, lane = thread_index() % WARP;
    Fetcher fetcher;
    clear(memory);
    block_sync();
    visit_network(memory, arrays, rank, [](float& shared, float& global, bool) { shared = global; });
    fetcher.look_up(arrays, rank, 0);
    fetcher.start(memory, arrays, rank, 0);
    fetcher.look_up(arrays, rank, 1);
    copy_wait();
    cluster_sync(); // now every block has begun, so that others may write to its memory
    for (int step = 0; step < arrays.steps(); ++step) {
        const int buffer = step % 2;
        const Scalars of_step(arrays.scalars + (size_t)step * SCALARS); // read long before they are needed
        fetcher.start(memory, arrays, rank, 1 - buffer);
        fetcher.look_up(arrays, rank, step + 2);
        if (rank < SLICES) send_partial_sums(memory, rank, buffer, warp, lane);
        cluster_sync();
        for (int own_row = warp; own_row < OWN_ROWS; own_row += WARPS) train_sample(memory, arrays, rank, buffer, own_row, step, lane);
        block_sync();
        send_small_gradients(memory, rank);
        cluster_sync();
        update_small(memory, rank, of_step);
        if (rank < SLICES) update_weights(memory, rank, buffer, Scalars(of_step.values, INPUT_SCALE), warp, lane);
        copy_wait();
        block_sync();
    }
    cluster_sync(); // the small parameters and all losses have arrived, and nobody writes to a block that has ended
    visit_network(memory, arrays, rank, [](float& shared, float& global, bool own) {
        if (own) global = shared;
    });
    sum_minibatches(arrays, rank, warp, lane);
}

CLUSTER_KERNEL(train_epoch, train)
