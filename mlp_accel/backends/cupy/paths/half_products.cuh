// Layout and products of cluster_half.cu, which says what is where.
//
// Numbers are split into two halves, value = high + low / 2048, which carry 22 bits together; those of a tile of rows lie side by
// side in memory, as [high | low]. Pixels are whole numbers up to 255, which one half holds.
constexpr int PARTS = 16; // logical slices of the inputs, and groups of samples: sums over them are the same whatever CLUSTER is
constexpr int OWN_PARTS = PARTS / CLUSTER;
constexpr int GROUP_ROWS = ROWS / PARTS;
constexpr int LEAST_CHUNKS = CHUNKS / PARTS;          // a part has so many chunks of 16 inputs, or one more
constexpr int OWN_CHUNKS = ceil_div(CHUNKS, CLUSTER); // room for those of a block
constexpr int SLICE = TILE * OWN_CHUNKS;
constexpr int DEPTH = 8; // products after which a sum is taken out of the tensor core, which truncates when it adds
constexpr int IMAGE_STRIDE = 8 * (SLICE / 8 | 1); // rows begin 16 bytes apart modulo 32, so that load_matrices meets all banks
constexpr int SPLIT_STRIDE = 2 * UNITS + 8;
constexpr float LOW_SCALE = 2048;
constexpr float DELTA_SCALE = NOTEBOOK_GRADIENT ? 256.0f : 64.0f * power_of_two(BATCH); // brings a delta near to 1
static_assert(PARTS % CLUSTER == 0 && ROWS % PARTS == 0 && UNITS % 32 == 0 && CLASS_STRIDE % 4 == 0 && CLASSES <= 16, "the layout");

// What others send to a block: each kind has a barrier, and a phase in every step.
//
// Nothing is sent again before it has been read. Partial sums of step t + 1 need the deltas of all samples of step t, which the owners
// of the samples send when they have read the partial sums. A delta needs the partial sums of its step, which a block sends when all
// of its warps have used the last delta. Small gradients and small parameters wait for each other in the same way.
enum Arrival { PARTIAL_SUMS, DELTA, SMALL_GRADIENTS, SMALL_PARAMETERS, ARRIVALS };

using half_bits = Sample;
struct alignas(16) ClusterMemory {
    ArrivalBarrier arrived[ARRIVALS];
    half_bits images[2][ROWS][IMAGE_STRIDE]; // this minibatch and the next
    half_bits weights[SLICE][SPLIT_STRIDE];  // of the first layer, split, units in storage order; the weights are in registers
    half_bits delta[ROWS][SPLIT_STRIDE];     // of the hidden layer, times DELTA_SCALE, likewise
    float partial_sums[CLUSTER][OWN_ROWS][UNITS];
    struct Row { // of the block's own samples
        float hidden[UNITS + 3]; // behind the units' outputs: 1, of which the output bias is the weight, and 1 / DELTA_SCALE
        int label;
        float own_delta[UNITS], output_delta[CLASS_STRIDE], scores[CLASS_STRIDE];
    } rows[OWN_ROWS];
    float small[CLUSTER * OWN_SMALL];
    float own_small[CLUSTER + SLOTS][OWN_SMALL]; // gradients over the samples of each block, then the slots
};
static_assert(sizeof(ClusterMemory) == SHARED_BYTES, "the host computes the shared memory in another way");

// Neighbours that are loaded and stored at once.
template <int N> struct alignas(4 * N) Floats { float v[N]; };
template <int N> DEVICE Floats<N> load(const float* from) { return *reinterpret_cast<const Floats<N>*>(from); }
template <int N> DEVICE void store(float* to, const float* from) {
    Floats<N> values;
#pragma unroll
    for (int e = 0; e < N; ++e) values.v[e] = from[e];
    *reinterpret_cast<Floats<N>*>(to) = values;
}
template <int N> DEVICE Floats<N> operator+(Floats<N> a, const Floats<N>& b) {
#pragma unroll
    for (int e = 0; e < N; ++e) a.v[e] += b.v[e];
    return a;
}
// term(first) + ... + term(first + COUNT - 1), as a binary tree: a block's own part of it is one of its branches.
template <int COUNT, class Term> DEVICE auto tree_sum(int first, Term term) {
    if constexpr (COUNT == 1) {
        return term(first);
    } else {
        const auto left = tree_sum<COUNT / 2>(first, term);
        return left + tree_sum<COUNT / 2>(first + COUNT / 2, term);
    }
}

DEVICE void split(float a, float b, unsigned& high, unsigned& low) {
    float x, y;
    high = pack_halves(a, b);
    unpack_halves(high, x, y);
    low = pack_halves((a - x) * LOW_SCALE, (b - y) * LOW_SCALE);
}

// First chunk of a part.
DEVICE int first_chunk(int part) { return part * CHUNKS / PARTS; }

// Units are stored so that two neighbouring tiles of 8 columns give a lane four neighbouring units: this is the unit of a column.
DEVICE int unit_at(int column) { return column / 16 * 16 + column % 8 / 2 * 4 + column / 8 % 2 * 2 + column % 2; }

// The product of one tile of rows with N tiles of columns: high and low of it are summed apart.
template <int N> struct Product {
    float high[N][4] = {}, low[N][4] = {};

    // For the n-th tile of columns, by the words of B that mma_half takes.
    DEVICE void add(const unsigned (&a)[4], int n, const unsigned* of_high, const unsigned* of_low) {
        mma_half(high[n], a, of_high[0], of_high[1]);
        mma_half(low[n], a, of_low[0], of_low[1]);
    }
    // Adds what has been summed up, and starts again.
    DEVICE void take_out(Floats<4> (&sum)[N]) {
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                sum[n].v[e] += fmaf(low[n][e], 1 / LOW_SCALE, high[n][e]);
                high[n][e] = low[n][e] = 0;
            }
    }
};

// 1. The first layer, before scale, bias and activation: a warp takes 16 samples and 16 units at a time.
struct Forward {
    const half_bits *image, *weights; // where this lane starts
    int first_part;                   // of the block's

    // Sum over one part of the inputs.
    DEVICE Floats<8> operator()(int part) const {
        Product<2> product;
        Floats<4> sum[2] = {};
        const int begin = first_chunk(part) - first_chunk(first_part);
#pragma unroll
        for (int k = 0; k < LEAST_CHUNKS; ++k) {
            if (k > 0 && k % DEPTH == 0) product.take_out(sum);
            add_chunk(product, begin + k);
        }
        if (first_chunk(part + 1) - first_chunk(part) > LEAST_CHUNKS) add_chunk(product, begin + LEAST_CHUNKS);
        product.take_out(sum);
        Floats<8> result;
#pragma unroll
        for (int i = 0; i < 8; ++i) result.v[i] = sum[i / 4].v[i % 4];
        return result;
    }
    DEVICE void add_chunk(Product<2>& product, int chunk) const {
        unsigned a[4], high[4], low[4];
        load_matrices(a, image + TILE * chunk);
        load_matrices_transposed(high, weights + TILE * chunk * SPLIT_STRIDE);
        load_matrices_transposed(low, weights + TILE * chunk * SPLIT_STRIDE + UNITS);
#pragma unroll
        for (int n = 0; n < 2; ++n) product.add(a, n, high + 2 * n, low + 2 * n);
    }
};

DEVICE void send_partial_sums(ClusterMemory& memory, int rank, int buffer, int warp, int lane) {
    constexpr int ACROSS = UNITS / 16, JOBS = ROWS / TILE * ACROSS;
    const Lane place(lane);
#pragma unroll
    for (int i = 0; i < ceil_div(JOBS, WARPS); ++i) {
        const int job = i * WARPS + warp, first_row = job / ACROSS * TILE, column = job % ACROSS * 16;
        if (JOBS % WARPS && job >= JOBS) break;
        const Forward part_sum = {&memory.images[buffer][first_row + lane % 16][lane / 16 * 8],
                                  &memory.weights[lane % 16][column + lane / 16 * 8], rank * OWN_PARTS};
        const Floats<8> sum = tree_sum<OWN_PARTS>(rank * OWN_PARTS, part_sum);
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
            const int row = first_row + place.group + 8 * lower;
            const float* pair = sum.v + 2 * lower; // of the first tile; that of the second is 4 further on
            const unsigned words[4] = {float_bits(pair[0]), float_bits(pair[1]), float_bits(pair[4]), float_bits(pair[5])};
            store_async(&memory.partial_sums[rank][row % OWN_ROWS][column + 4 * place.item], row / OWN_ROWS, words,
                        &memory.arrived[PARTIAL_SUMS]);
        }
    }
}

// 3b. The block's slice of the first layer, whose gradient is images.T @ delta. Weights and slots are in the registers of the warps,
// as tiles of 16 inputs and 8 * WIDTH units; what the products of step 1 read is in shared memory, split.
constexpr int WIDTH = OWN_CHUNKS * UNITS / 8 <= WARPS ? 1 : 2;
constexpr int ACROSS = UNITS / (8 * WIDTH), TILES = ceil_div(OWN_CHUNKS * ACROSS, WARPS);
struct Weights {
    float value[TILES][WIDTH][4], slots[TILES][WIDTH][4][SLOTS + 1];
    int first, chunks, warp; // first chunk of the block, and how many it has
    Lane place;
    int lane;

    DEVICE Weights(int rank, int warp, int lane) : warp(warp), place(lane), lane(lane) {
        first = first_chunk(rank * OWN_PARTS), chunks = first_chunk((rank + 1) * OWN_PARTS) - first;
    }
    // Calls what(tile, chunk, column) for the warp's tiles.
    template <class What> DEVICE void each(What what) const {
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            const int job = tile * WARPS + warp;
            if (job / ACROSS < chunks) what(tile, job / ACROSS, job % ACROSS * 8 * WIDTH);
        }
    }
    // Calls what(n, e, place) for the lane's weights in a tile; place among all parameters, -1 for padding.
    template <class What> DEVICE void each_weight(int chunk, int column, What what) const {
#pragma unroll
        for (int n = 0; n < WIDTH; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int input = (first + chunk) * TILE + place.group + e / 2 * 8;
                const int unit = unit_at(column + 8 * n + 2 * place.item + e % 2);
                const bool is_weight = (INPUTS % TILE == 0 || input < INPUTS) && (HIDDEN == UNITS || unit < HIDDEN);
                what(n, e, is_weight ? input * HIDDEN + unit : -1);
            }
    }
    DEVICE void publish(ClusterMemory& memory, int tile, int chunk, int column) const {
#pragma unroll
        for (int n = 0; n < WIDTH; ++n)
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                unsigned high, low;
                split(value[tile][n][2 * lower], value[tile][n][2 * lower + 1], high, low);
                half_bits* at = &memory.weights[TILE * chunk + place.group + 8 * lower][column + 8 * n + 2 * place.item];
                *reinterpret_cast<unsigned*>(at) = high, *reinterpret_cast<unsigned*>(at + UNITS) = low;
            }
    }
    DEVICE void load(ClusterMemory& memory, const float* state) {
        each([&](int tile, int chunk, int column) {
            each_weight(chunk, column, [&](int n, int e, int at) {
                value[tile][n][e] = at < 0 ? 0 : state[at];
#pragma unroll
                for (int slot = 0; slot < SLOTS; ++slot)
                    slots[tile][n][e][slot] = at < 0 ? 0 : state[(size_t)(1 + slot) * PARAMETERS + at];
            });
            publish(memory, tile, chunk, column);
        });
    }
    DEVICE void store(float* state) const {
        each([&](int tile, int chunk, int column) {
            each_weight(chunk, column, [&](int n, int e, int at) {
                if (at < 0) return;
                state[at] = value[tile][n][e];
#pragma unroll
                for (int slot = 0; slot < SLOTS; ++slot) state[(size_t)(1 + slot) * PARAMETERS + at] = slots[tile][n][e][slot];
            });
        });
    }
    DEVICE void update(ClusterMemory& memory, int buffer, const Scalars& scalars) {
        each([&](int tile, int chunk, int column) {
            // Transposed, the four matrices of A are its quarters as mma_half wants them; those of B are two tiles of columns, or the
            // high and the low part of one.
            const half_bits* image = &memory.images[buffer][lane % 8 + lane / 16 * 8][TILE * chunk + lane / 8 % 2 * 8];
            const half_bits* delta = &memory.delta[lane % 16][column + (WIDTH == 1 ? UNITS : 8) * (lane / 16)];
            Product<WIDTH> product;
            Floats<4> sum[WIDTH] = {};
#pragma unroll(TILES == 1 ? ROWS / TILE : SLOTS == 0 ? 4 : 2) // more would take registers
            for (int k = 0; k < ROWS / TILE; ++k) {
                if (k > 0 && k % DEPTH == 0) product.take_out(sum);
                unsigned a[4], b[4], low[4];
                load_matrices_transposed(a, image + TILE * k * IMAGE_STRIDE);
                load_matrices_transposed(b, delta + TILE * k * SPLIT_STRIDE);
                if constexpr (WIDTH == 1) {
                    product.add(a, 0, b, b + 2);
                } else {
                    load_matrices_transposed(low, delta + TILE * k * SPLIT_STRIDE + UNITS);
#pragma unroll
                    for (int n = 0; n < WIDTH; ++n) product.add(a, n, b + 2 * n, low + 2 * n);
                }
            }
            product.take_out(sum);
            each_weight(chunk, column, [&](int n, int e, int at) {
                // Padding has no gradient: by p - u * g it stays 0, but another rule may make something else of it.
                if (RATE_INDEX < 0 && (INPUTS < PIXELS || HIDDEN < UNITS) && at < 0) return;
                value[tile][n][e] = scalars.updated(value[tile][n][e], sum[n].v[e], slots[tile][n][e], 1);
            });
            publish(memory, tile, chunk, column);
        });
    }
};
