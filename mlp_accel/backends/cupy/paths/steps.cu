// A step of training in a few launches, for any number of layers of any size: forward, one kernel for each hidden layer; the output
// layer with the loss; backward, one for each hidden layer; all updates in one.
//
// Each block computes one tile of a product: each of its warps multiplies a part of the depth, and the parts are added up in a fixed
// order. Parameters, outputs and deltas are one buffer each; where a layer begins in them follows from the sizes, which are constants.
// A delta is the error at a layer: the derivative of the loss by what goes into its activation.
//
// The host defines SIZES (inputs, hidden ..., classes), LAYERS, BATCH, BYTES (samples are uint8, else float32), SAMPLE_STRIDE, WARPS
// of a block, COLUMNS of its tile, SHARED_BYTES, the lengths N_PARAMETERS and N_DELTAS of the buffers, and what common.cuh needs; it
// lists the kernels with STEP_KERNEL and FORWARD_KERNEL.
constexpr int THREADS = WARPS * WARP;
constexpr int TILES_AT_ONCE = COLUMNS / TILE_COLUMNS;
static_assert(COLUMNS % TILE_COLUMNS == 0, "a block's tile is made of whole tiles of mma_tf32");
constexpr int SIZE[] = {SIZES};
static_assert(sizeof(SIZE) == (LAYERS + 1) * sizeof(int) && SIZE[LAYERS] == CLASSES, "the host counts the layers in another way");
#if BYTES
using Pixel = uint8;
#else
using Pixel = float;
#endif

struct StepMemory {
    float partial[WARPS][TILE][COLUMNS];
    float scores[TILE][round_up(CLASSES, COLUMNS)];
};
static_assert(sizeof(StepMemory) == SHARED_BYTES, "the host computes the shared memory in another way");

// Places in the buffers. Layer l has weights (SIZE[l], SIZE[l + 1]), then its bias.
DEVICE constexpr size_t weights_at(int layer) {
    size_t place = 0;
    for (int l = 0; l < layer; ++l) place += (size_t)(SIZE[l] + 1) * SIZE[l + 1];
    return place;
}
DEVICE constexpr size_t output_at(int layer) {
    size_t place = 0;
    for (int l = 0; l < layer; ++l) place += (size_t)BATCH * SIZE[l + 1];
    return place;
}
constexpr size_t PARAMETERS = weights_at(LAYERS), OUTPUTS = output_at(LAYERS);
static_assert(PARAMETERS == N_PARAMETERS && OUTPUTS == N_DELTAS, "the host makes buffers of another length");
DEVICE constexpr int update_tiles(int layer) { return ceil_div(SIZE[layer] + 1, TILE) * ceil_div(SIZE[layer + 1], COLUMNS); }

// What a kernel is given, and where each layer is in it.
struct StepArrays {
    float* parameters;    // (1 + SLOTS, PARAMETERS): the parameters, and behind them each of their slots
    float* outputs;       // of each hidden layer, (BATCH, SIZE[l + 1]); behind them, if SLOPE_OF_INPUT, the sums before the activation
    float* deltas;        // of each layer, (BATCH, SIZE[l + 1])
    const Pixel* samples; // (n, SAMPLE_STRIDE)
    const float* scalars; // (steps, SCALARS)
    const int *labels, *order;
    float* losses; // (n,) in the order of training
    uint8* hits;
    double *batch_losses, *batch_hits; // (steps,)
    int n;

    DEVICE float* weights(int layer) const { return parameters + weights_at(layer); }
    DEVICE float* bias(int layer) const { return weights(layer) + (size_t)SIZE[layer] * SIZE[layer + 1]; }
    DEVICE float* delta(int layer) const { return deltas + output_at(layer); }
    DEVICE float* output(int layer) const { return outputs + output_at(layer); }
    DEVICE float* slope_input(int layer) const { return output(layer) + (SLOPE_OF_INPUT ? OUTPUTS : 0); }
    DEVICE int rows(int step) const { return min(BATCH, n - step * BATCH); }

    // Value `place` of what goes into a layer for sample `row` of the minibatch; pixels are not scaled yet.
    template <int LAYER> DEVICE float input(int step, int row, int place) const {
        if constexpr (LAYER == 0) {
            return samples[(size_t)order[(size_t)step * BATCH + row] * SAMPLE_STRIDE + place];
        } else {
            return output(LAYER - 1)[(size_t)row * SIZE[LAYER] + place];
        }
    }
};

template <int LAYER> constexpr bool READS_BYTES = LAYER == 0 && BYTES;
template <int LAYER> constexpr float INPUT_SCALE = READS_BYTES<LAYER> ? PIXEL_SCALE : 1.0f;

// One tile of a @ b, by the block: calls store(row, column, value) for each element, both counted from the tile's corner.
// a(row, k) and b(k, column) are 0 outside of the matrices.
template <bool EXACT_A, class A, class B, class Store> DEVICE void block_product(StepMemory& memory, int depth, A a, B b, Store store) {
    const int warp = thread_index() / WARP;
    const Lane lane(thread_index() % WARP);
    const int share = ceil_div(ceil_div(depth, 8), WARPS), first = warp * share;
    const int last = min(first + share, ceil_div(depth, 8));
    float sum[TILES_AT_ONCE][4] = {};
    auto load_a = [&](int k, float (&values)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = a(lane.group + i % 2 * 8, 8 * k + lane.item + i / 2 * 4);
    };
    auto load_b = [&](int k, int n, float (&values)[2]) {
#pragma unroll
        for (int i = 0; i < 2; ++i) values[i] = b(8 * k + lane.item + i * 4, n * TILE_COLUMNS + lane.group);
    };
    multiply<TILES_AT_ONCE, EXACT_A>(sum, first, last, load_a, load_b);
#pragma unroll
    for (int n = 0; n < TILES_AT_ONCE; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            memory.partial[warp][lane.group + i / 2 * 8][n * TILE_COLUMNS + 2 * lane.item + i % 2] = sum[n][i];
    block_sync();
    for (int i = thread_index(); i < TILE * COLUMNS; i += THREADS) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) total += memory.partial[w][i / COLUMNS][i % COLUMNS];
        store(i / COLUMNS, i % COLUMNS, total);
    }
    block_sync(); // the memory is free for the next product
}

// The layer before its activation, without its bias: a tile at (first_row, first_column).
template <int LAYER, class Store> DEVICE void layer_product(StepMemory& memory, const StepArrays& arrays, int step, int first_row, int first_column, Store store) {
    constexpr int IN = SIZE[LAYER], OUT = SIZE[LAYER + 1];
    const int rows = arrays.rows(step);
    const float* weights = arrays.weights(LAYER);
    auto a = [&](int row, int k) {
        return first_row + row < rows && k < IN ? arrays.template input<LAYER>(step, first_row + row, k) : 0.0f;
    };
    auto b = [&](int k, int column) {
        return k < IN && first_column + column < OUT ? weights[(size_t)k * OUT + first_column + column] : 0.0f;
    };
    block_product<READS_BYTES<LAYER>>(memory, IN, a, b, store);
}

template <int LAYER> DEVICE void forward(const StepArrays& arrays, int step) {
    constexpr int OUT = SIZE[LAYER + 1], ACROSS = ceil_div(OUT, COLUMNS);
    const int first_row = block_index() / ACROSS * TILE, first_column = block_index() % ACROSS * COLUMNS, rows = arrays.rows(step);
    if (first_row >= rows) return;
    layer_product<LAYER>(shared_memory<StepMemory>(), arrays, step, first_row, first_column, [&](int row, int column, float sum) {
        row += first_row, column += first_column;
        if (row >= rows || column >= OUT) return;
        const size_t place = (size_t)row * OUT + column;
        const float z = sum * INPUT_SCALE<LAYER> + arrays.bias(LAYER)[column];
        if (SLOPE_OF_INPUT) arrays.slope_input(LAYER)[place] = z;
        arrays.output(LAYER)[place] = activate(z);
    });
}

// Logits, loss and delta at the logits of TILE samples.
DEVICE void output(const StepArrays& arrays, int step) {
    constexpr int LAYER = LAYERS - 1;
    StepMemory& memory = shared_memory<StepMemory>();
    const int first_row = block_index() * TILE, rows = arrays.rows(step);
    if (first_row >= rows) return;
    for (int first = 0; first < CLASSES; first += COLUMNS)
        layer_product<LAYER>(memory, arrays, step, first_row, first, [&](int row, int column, float sum) {
            if (first + column < CLASSES)
                memory.scores[row][first + column] = sum * INPUT_SCALE<LAYER> + arrays.bias(LAYER)[first + column];
        });
    const int lane = thread_index() % WARP;
    for (int i = thread_index() / WARP; i < TILE && first_row + i < rows; i += WARPS) {
        const int row = first_row + i;
        const size_t place = (size_t)step * BATCH + row;
        float scores[CLASSES_PER_LANE];
#pragma unroll
        for (int j = 0; j < CLASSES_PER_LANE; ++j) scores[j] = j * WARP + lane < CLASSES ? memory.scores[i][j * WARP + lane] : 0;
        const Classified sample(scores, lane, arrays.labels[arrays.order[place]], rows);
        if (lane == 0) arrays.losses[place] = sample.loss, arrays.hits[place] = sample.hit;
#pragma unroll
        for (int j = 0; j < CLASSES_PER_LANE; ++j)
            if (j * WARP + lane < CLASSES) arrays.delta(LAYER)[(size_t)row * CLASSES + j * WARP + lane] = scores[j];
    }
}

// Delta of the hidden layer below `LAYER`: delta @ weights.T * slope.
template <int LAYER> DEVICE void backward(const StepArrays& arrays, int step) {
    constexpr int IN = SIZE[LAYER], OUT = SIZE[LAYER + 1], ACROSS = ceil_div(IN, COLUMNS);
    const int first_row = block_index() / ACROSS * TILE, first_column = block_index() % ACROSS * COLUMNS, rows = arrays.rows(step);
    if (first_row >= rows) return;
    const float *delta = arrays.delta(LAYER), *weights = arrays.weights(LAYER);
    auto a = [&](int row, int k) { return first_row + row < rows && k < OUT ? delta[(size_t)(first_row + row) * OUT + k] : 0.0f; };
    auto b = [&](int k, int column) {
        return k < OUT && first_column + column < IN ? weights[(size_t)(first_column + column) * OUT + k] : 0.0f;
    };
    block_product<false>(shared_memory<StepMemory>(), OUT, a, b, [&](int row, int column, float sum) {
        row += first_row, column += first_column;
        if (row >= rows || column >= IN) return;
        const size_t place = (size_t)row * IN + column;
        arrays.delta(LAYER - 1)[place] = times_slope(sum, arrays.slope_input(LAYER - 1)[place]);
    });
}

// Updates one tile of a layer's parameters. The bias is one more row of the weights, whose input is always 1 (255 before scaling).
template <int LAYER> DEVICE void update_tile(const StepArrays& arrays, int step, int tile) {
    constexpr int IN = SIZE[LAYER], OUT = SIZE[LAYER + 1], ACROSS = ceil_div(OUT, COLUMNS);
    constexpr float ONE = READS_BYTES<LAYER> ? 255 : 1;
    const int first_input = tile / ACROSS * TILE, first_column = tile % ACROSS * COLUMNS, rows = arrays.rows(step);
    const float* delta = arrays.delta(LAYER);
    float* weights = arrays.weights(LAYER);
    auto a = [&](int row, int k) {
        const int place = first_input + row;
        if (k >= rows || place > IN) return 0.0f;
        return place == IN ? ONE : arrays.template input<LAYER>(step, k, place);
    };
    auto b = [&](int k, int column) {
        return k < rows && first_column + column < OUT ? delta[(size_t)k * OUT + first_column + column] : 0.0f;
    };
    const Scalars scalars(arrays.scalars + (size_t)step * SCALARS, INPUT_SCALE<LAYER>);
    block_product<READS_BYTES<LAYER>>(shared_memory<StepMemory>(), rows, a, b, [&](int row, int column, float sum) {
        const int place = first_input + row;
        column += first_column;
        if (place > IN || column >= OUT) return;
        float* weight = weights + (size_t)place * OUT + column;
        *weight = scalars.updated(*weight, sum, weight + PARAMETERS, PARAMETERS);
    });
}

template <int LAYER = 0> DEVICE void update(const StepArrays& arrays, int step, int tile) {
    if constexpr (LAYER < LAYERS) {
        if (tile < update_tiles(LAYER))
            update_tile<LAYER>(arrays, step, tile);
        else
            update<LAYER + 1>(arrays, step, tile - update_tiles(LAYER));
    }
}

DEVICE void update_all(const StepArrays& arrays, int step) { update(arrays, step, block_index()); }

// After the last step: the sums of each minibatch, one warp for each.
DEVICE void sum_minibatches(const StepArrays& arrays, int) {
    const int step = block_index() * WARPS + thread_index() / WARP;
    if (step * BATCH >= arrays.n) return;
    sum_minibatch(arrays.losses, arrays.hits, step * BATCH, min(arrays.n, (step + 1) * BATCH), thread_index() % WARP,
                  arrays.batch_losses + step, arrays.batch_hits + step);
}

#define KERNEL_WITHIN(bounds, name, function)                                                                                      \
    extern "C" __global__ void __launch_bounds__ bounds                                                                            \
        name(float* parameters, float* outputs, float* deltas, const Pixel* samples, const float* scalars, const int* labels,      \
             const int* order, float* losses, uint8* hits, double* batch_losses, double* batch_hits, int n, int step) {            \
        function(StepArrays{parameters, outputs, deltas, samples, scalars, labels, order, losses, hits, batch_losses, batch_hits,  \
                            n},                                                                                                    \
                 step);                                                                                                            \
    }
#define STEP_KERNEL(name, function) KERNEL_WITHIN((THREADS), name, function)
// Two blocks of a forward kernel must fit on a multiprocessor, which limits its registers: some activations would take more.
#define FORWARD_KERNEL(name, function) KERNEL_WITHIN((THREADS, 2), name, function)
