// What cluster_half.cu does for each sample of a minibatch: it is fetched, goes from the hidden layer to the loss and back, and has its
// part in the gradients of the small parameters.

// Copies the next minibatch. LANES lanes fetch an image, each PIECES of 16 bytes. Rows that a short minibatch lacks get some other
// image: their delta is zero. The numbers of the samples are read one step earlier, so that the copy does not wait for them.
struct Fetcher {
    static constexpr int LANES = power_of_two(SLICE / 8) < WARP ? power_of_two(SLICE / 8) : WARP;
    static constexpr int PIECES = ceil_div(SLICE / 8, LANES), AT_ONCE = THREADS / LANES, FETCHES = ceil_div(ROWS, AT_ONCE);
    const half_bits* from;      // the lane's first piece of the first image
    int first_row, piece, pieces; // the lane's
    int samples[FETCHES];

    DEVICE Fetcher(const ClusterArrays& arrays, int first_chunk, int chunks)
        : first_row(thread_index() / LANES), piece(thread_index() % LANES), pieces(ceil_div(2 * chunks - piece, LANES)) {
        from = arrays.images + TILE * first_chunk + 8 * piece;
    }
    DEVICE void look_up(const ClusterArrays& arrays, int step) {
#pragma unroll
        for (int i = 0; i < FETCHES; ++i) samples[i] = arrays.order[min(step * BATCH + i * AT_ONCE + first_row, arrays.n - 1)];
    }
    DEVICE void start(ClusterMemory& memory, int buffer) const {
        half_bits* to = &memory.images[buffer][first_row][8 * piece];
#pragma unroll
        for (int j = 0; j < PIECES; ++j)
            if (j < pieces)
#pragma unroll
                for (int i = 0; i < FETCHES; ++i)
                    if (ROWS % AT_ONCE == 0 || i * AT_ONCE + first_row < ROWS)
                        copy_async16(to + i * AT_ONCE * IMAGE_STRIDE + j * LANES * 8,
                                     from + (size_t)(unsigned)samples[i] * PIXELS + j * LANES * 8);
    }
};

// A warp trains WARP_ROWS of the block's own samples at a time, with ROW_LANES lanes each: of every 32 units a lane has UNITS_AT_ONCE
// neighbours. More lanes a sample where warps would have nothing to do.
constexpr int ROW_LANES = OWN_ROWS <= 8 && WARPS >= 4 ? 16 : 8, WARP_ROWS = WARP / ROW_LANES, UNITS_AT_ONCE = 32 / ROW_LANES;
constexpr int SAMPLE_ROUNDS = ceil_div(OWN_ROWS, WARP_ROWS * WARPS);
constexpr float LOG2_E = 1.442695041f;
DEVICE bool has_samples(int warp) { return WARP_ROWS * warp < OWN_ROWS; }

// Labels of a warp's samples, in registers of the lanes of each: of this step and the next; and which sample it is, a step further on.
struct Labels {
    int now[SAMPLE_ROUNDS], next[SAMPLE_ROUNDS], sample[SAMPLE_ROUNDS];

    // To be called twice before the first step; `step`: the one whose labels will be looked up by the call after this one.
    DEVICE void advance(const ClusterArrays& arrays, int rank, int warp, int lane, int step) {
#pragma unroll
        for (int i = 0; i < SAMPLE_ROUNDS; ++i) {
            const int row = rank * OWN_ROWS + min(WARP_ROWS * (i * WARPS + warp) + lane / ROW_LANES, OWN_ROWS - 1);
            now[i] = next[i], next[i] = arrays.labels[sample[i]], sample[i] = arrays.order[min(step * BATCH + row, arrays.n - 1)];
        }
    }
};

// Sum over the lanes of a sample: with that over a lane's units a binary tree, the same whatever ROW_LANES is.
DEVICE float row_sum(float value) {
#pragma unroll
    for (int mask = 1; mask < ROW_LANES; mask *= 2) value += shuffle_xor(value, mask);
    return value;
}

// 2a. A lane's part of one sample, from the hidden layer to the loss and back.
struct SampleLane {
    static constexpr int GROUPS = UNITS / 32, QUADS = CLASS_STRIDE / 4;
    float hidden[GROUPS][UNITS_AT_ONCE], slope_input[GROUPS][UNITS_AT_ONCE];
    float scores[CLASS_STRIDE] = {}, error[CLASS_STRIDE] = {}; // the same in all lanes of the sample

    DEVICE static int unit(int group, int lane) { return 32 * group + UNITS_AT_ONCE * (lane % ROW_LANES); }

    // Calls what(c, weight) for the output weights of a unit.
    template <class What> DEVICE static void each_class(const ClusterMemory& memory, int unit, What what) {
#pragma unroll
        for (int q = 0; q < QUADS; ++q) {
            const Floats<4> weights = load<4>(&memory.small[unit * CLASS_STRIDE + 4 * q]);
#pragma unroll
            for (int c = 0; c < 4; ++c)
                if (4 * q + c < CLASSES) what(4 * q + c, weights.v[c]);
        }
    }

    DEVICE void forward(const ClusterMemory& memory, int own_row, int lane) {
        float pairs[UNITS_AT_ONCE / 2][CLASSES] = {}; // of units, for each class
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
            const int first = unit(i, lane);
            const auto z = tree_sum<CLUSTER>(0, [&](int block) { return load<UNITS_AT_ONCE>(&memory.partial_sums[block][own_row][first]); });
            const auto bias = load<UNITS_AT_ONCE>(&memory.small[HIDDEN_BIAS + first]);
#pragma unroll
            for (int e = 0; e < UNITS_AT_ONCE; ++e) {
                const float input = fmaf(z.v[e], PIXEL_SCALE, bias.v[e]), output = activate(input);
                hidden[i][e] = HIDDEN == UNITS || first + e < HIDDEN ? output : 0;
                slope_input[i][e] = SLOPE_OF_INPUT ? input : output;
            }
#pragma unroll
            for (int e = 0; e < UNITS_AT_ONCE; ++e)
                each_class(memory, first + e, [&](int c, float weight) { pairs[e / 2][c] = fmaf(hidden[i][e], weight, pairs[e / 2][c]); });
        }
#pragma unroll
        for (int c = 0; c < CLASSES; ++c)
            scores[c] = row_sum(UNITS_AT_ONCE == 2 ? pairs[0][c] : pairs[0][c] + pairs[UNITS_AT_ONCE / 2 - 1][c]) + memory.small[OUTPUT_BIAS + c];
    }

    // mean: what the derivative of the mean loss is divided by, as a factor; 0 for a row that the minibatch lacks.
    DEVICE void classify(int label, float mean) {
        float largest = scores[0], total = 0, exponentials[CLASSES];
#pragma unroll
        for (int c = 1; c < CLASSES; ++c) largest = larger(largest, scores[c]);
        const float shift = largest * -LOG2_E; // its rounding divides all exponentials by the same number
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) total += exponentials[c] = exponential2(fmaf(scores[c], LOG2_E, shift));
        const float inverse = reciprocal(total), inverse_mean = inverse * mean;
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) {
            if (NOTEBOOK_GRADIENT) {
                const float p = exponentials[c] * inverse;
                error[c] = (p - (c == label ? 1.0f : 0.0f)) * p * (1 - p) * mean;
            } else {
                error[c] = fmaf(exponentials[c], inverse_mean, c == label ? -mean : 0.0f);
            }
        }
    }

    // The lane's part of the hidden layer's delta, which goes to all blocks.
    DEVICE void send_delta(ClusterMemory& memory, int rank, int own_row, bool own, int lane) {
#pragma unroll
        for (int i = 0; i < GROUPS; ++i) {
            const int first = unit(i, lane);
            float delta[UNITS_AT_ONCE];
#pragma unroll
            for (int e = 0; e < UNITS_AT_ONCE; ++e) {
                float sum = 0;
                each_class(memory, first + e, [&](int c, float weight) { sum = fmaf(error[c], weight, sum); });
                delta[e] = HIDDEN == UNITS || first + e < HIDDEN ? times_slope(sum * DELTA_SCALE, slope_input[i][e]) : 0;
            }
            const Piece piece(delta, lane);
            if (!own) continue;
            half_bits* to = &memory.delta[rank * OWN_ROWS + own_row][piece.low * UNITS + first / 16 * 16 + piece.tile * 8];
#pragma unroll
            for (int block = 0; block < Piece::BLOCKS; ++block)
                if (CLUSTER > 1 || piece.first_block == 0)
                    store_async(to, piece.first_block + block, piece.words, &memory.arrived[DELTA]);
            store<UNITS_AT_ONCE>(&memory.rows[own_row].own_delta[first], delta);
            store<UNITS_AT_ONCE>(&memory.rows[own_row].hidden[first], hidden[i]);
        }
    }

    // 16 neighbouring bytes of a row of delta: a tile of 8 columns, high or low. Lanes exchange their parts for it.
    struct Piece {
        static constexpr int BLOCKS = UNITS_AT_ONCE == 4 ? CLUSTER : ceil_div(CLUSTER, 2); // that a lane sends it to
        unsigned words[4];
        int low, tile, first_block;

        DEVICE Piece(const float (&delta)[UNITS_AT_ONCE], int lane) : low(lane / 2 % 2), tile(lane % 2), first_block(0) {
            if constexpr (UNITS_AT_ONCE == 4) { // four lanes have two tiles, high and low: a lane gets one of the four
                split(delta[0], delta[1], words[0], words[2]), split(delta[2], delta[3], words[1], words[3]);
                swap(words[0], words[2], low, 2), swap(words[1], words[3], low, 2);
                swap(words[0], words[1], tile, 1), swap(words[2], words[3], tile, 1);
            } else { // lanes t, t + 2, t + 4, t + 6 have tile t: two of them get its high part, two the low one, for half the blocks each
                const int upper = lane / 4 % 2;
                split(delta[0], delta[1], words[0], words[1]);
                swap(words[0], words[1], low, 2);
                words[2] = shuffle_xor(words[0], 4), words[3] = shuffle_xor(words[1], 4);
                if (upper) exchange(words[0], words[2]), exchange(words[1], words[3]);
                first_block = upper ? (CLUSTER == 1 ? 1 : CLUSTER - BLOCKS) : 0;
            }
        }
        // Lanes that are `mask` apart make a pair: its first one gets both of the a, its second one both of the b.
        DEVICE static void swap(unsigned& a, unsigned& b, int second, int mask) {
            const unsigned other = shuffle_xor(second ? a : b, mask);
            if (second)
                a = other;
            else
                b = other;
        }
        DEVICE static void exchange(unsigned& a, unsigned& b) {
            const unsigned before = a;
            a = b, b = before;
        }
    };
};

DEVICE void store_classes(float* to, const float (&values)[CLASS_STRIDE]) {
#pragma unroll
    for (int c = 0; c < CLASS_STRIDE; c += 4) store<4>(to + c, values + c);
}

DEVICE void train_samples(ClusterMemory& memory, const ClusterArrays& arrays, int rank, int label, int first_row, int step, int lane) {
    const int rows = arrays.rows(step);
    const bool own = OWN_ROWS % WARP_ROWS == 0 || first_row + lane / ROW_LANES < OWN_ROWS;
    const int own_row = own ? first_row + lane / ROW_LANES : 0;
    const float mean = NOTEBOOK_GRADIENT ? 1.0f : rows == BATCH ? 1.0f / BATCH : reciprocal((float)rows);
    ClusterMemory::Row& row = memory.rows[own_row];
    const bool first_lane = own && lane % ROW_LANES == 0;
    SampleLane sample;
    sample.forward(memory, own_row, lane);
    if (first_lane) store_classes(row.scores, sample.scores), row.label = label;
    sample.classify(label, own && rank * OWN_ROWS + own_row < rows ? mean : 0.0f);
    sample.send_delta(memory, rank, own_row, own, lane);
    if (first_lane) store_classes(row.output_delta, sample.error);
}

// 2b. Gradients of the small parameters over the block's samples, four neighbours by a thread.
DEVICE void send_small_gradients(ClusterMemory& memory, int rank) {
    constexpr int STRIDE = sizeof(ClusterMemory::Row) / sizeof(float), QUADS = CLASS_STRIDE / 4;
    for (int i = THREADS - 1 - thread_index(); i < SMALL / 4; i += THREADS) { // the first threads are needed in 2a the longest
        const bool of_hidden_bias = i >= HIDDEN_BIAS / 4;
        const ClusterMemory::Row& first = memory.rows[0];
        const float* deltas = of_hidden_bias ? &first.own_delta[4 * i - HIDDEN_BIAS] : &first.output_delta[i % QUADS * 4];
        const float* outputs = &first.hidden[of_hidden_bias ? UNITS + 1 : i / QUADS];
        const Floats<4> sum = tree_sum<OWN_PARTS>(0, [&](int group) {
            Floats<4> total = {};
#pragma unroll
            for (int row = group * GROUP_ROWS; row < (group + 1) * GROUP_ROWS; ++row) {
                const Floats<4> delta = load<4>(deltas + row * STRIDE);
                const float output = outputs[row * STRIDE];
#pragma unroll
                for (int e = 0; e < 4; ++e) total.v[e] = fmaf(output, delta.v[e], total.v[e]);
            }
            return total;
        });
        const unsigned words[4] = {float_bits(sum.v[0]), float_bits(sum.v[1]), float_bits(sum.v[2]), float_bits(sum.v[3])};
        store_async(&memory.own_small[rank][4 * i % OWN_SMALL], 4 * i / OWN_SMALL, words, &memory.arrived[SMALL_GRADIENTS]);
    }
}

// Losses and hits of the block's samples, by threads that have nothing else to do while the deltas are on their way.
DEVICE void judge_samples(const ClusterMemory& memory, const ClusterArrays& arrays, int rank, int step) {
    constexpr int FIRST = THREADS / 2; // a warp with no part in 2a and 2b, if there are enough
    for (int own_row = (thread_index() + FIRST) % THREADS; own_row < OWN_ROWS; own_row += THREADS) {
        const int row = rank * OWN_ROWS + own_row;
        if (row >= arrays.rows(step)) continue;
        const float* scores = memory.rows[own_row].scores;
        float largest = scores[0], total = 0;
        int best = 0, label = memory.rows[own_row].label;
#pragma unroll
        for (int c = 1; c < CLASSES; ++c)
            if (scores[c] > largest) largest = scores[c], best = c; // of equal scores the first
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) total += exponential2((scores[c] - largest) * LOG2_E);
        // The difference of two large float32 may overflow, so it is taken in float64.
        const float loss = (float)((double)largest - scores[label] + logf(total));
        arrays.report(step, row, loss, best == label);
    }
}

// 3a. The block's own small parameters, which it sends to all.
DEVICE int numbers_of_own_small(int rank) { return min(OWN_SMALL, SMALL - rank * OWN_SMALL); }
DEVICE int first_own_small(int warp) { return (WARPS - 1 - warp) * WARP; } // the last warps have the least else to do

// A lane updates one number; four lanes then have the same four neighbours, and send them to a part of the blocks each.
DEVICE void update_small(ClusterMemory& memory, int rank, const Scalars& scalars, int warp, int lane) {
    const int numbers = numbers_of_own_small(rank);
#pragma unroll 1 // there is rarely a second round
    for (int first = first_own_small(warp); first < numbers; first += THREADS) {
        const int i = first + lane, place = rank * OWN_SMALL + i;
        float value = 0;
        if (i < numbers && place_of_small(place) >= 0) {
            const float gradient = tree_sum<CLUSTER>(0, [&](int block) { return memory.own_small[block][i]; });
            value = scalars.updated(memory.small[place], gradient, &memory.own_small[SLOTS > 0 ? CLUSTER : 0][i], OWN_SMALL);
        }
        unsigned words[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) words[e] = float_bits(shuffle(value, lane / 4 * 4 + e));
        if (i >= numbers) continue;
#pragma unroll
        for (int round = 0; round < ceil_div(CLUSTER, 4); ++round)
            if (CLUSTER % 4 == 0 || lane % 4 < CLUSTER)
                store_async(&memory.small[place / 4 * 4], 4 * round + lane % 4, words, &memory.arrived[SMALL_PARAMETERS]);
    }
}
