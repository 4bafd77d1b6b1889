// What the kernels of the paths share: products on tensor cores, the numbers of a step, and the loss of one sample.
// The host defines WARP, TILE, PIECE, NOTEBOOK_GRADIENT, SPLIT_TF32, TENSOR_CORES and CLASSES, and puts the activation and the update rule before
// this.
static_assert(PIECE == 16, "bytes that copy_async16 copies");
static_assert(TILE == 16, "rows of a tile of mma_tf32");
static_assert(sizeof(Real) == sizeof(float), "the tensor cores compute in float32");
constexpr int TILE_COLUMNS = 8; // columns of a tile, and the depth of one product
constexpr int CHUNK = 8;        // products after which a sum is taken out of the tensor core, which truncates when it adds

DEVICE constexpr int round_up(int n, int unit) { return ceil_div(n, unit) * unit; }

constexpr float PIXEL_SCALE = 1.0f / 255.0f;

// A lane's place in a tile, see mma_tf32.
struct Lane {
    int group, item;
    DEVICE Lane(int lane) : group(lane / 4), item(lane % 4) {}
};

// d += a @ b for one tile, with operands spread over the warp as for mma_tf32, whatever computes it; and an operand of it near to a
// float32 number. With SPLIT_TF32 what is missing becomes another operand: cutting off is then as good as rounding, and an instruction
// cheaper, and both together carry 21 bits at least.
#if TENSOR_CORES
DEVICE void multiply_tile(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_tf32(d, a, b); }
DEVICE unsigned near_operand(float value) { return SPLIT_TF32 ? float_bits(value) & 0xffffe000u : to_tf32(value); }
#else
static_assert(!SPLIT_TF32, "operands are float32");
DEVICE void multiply_tile(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const int lane = thread_index() % WARP, group = lane / 4, item = lane % 4;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        const int half = k / 4, from = k % 4;
        const float upper = tf32_value(shuffle(a[2 * half], 4 * group + from)), lower = tf32_value(shuffle(a[2 * half + 1], 4 * group + from));
        const float left = tf32_value(shuffle(b[half], 8 * item + from)), right = tf32_value(shuffle(b[half], 8 * item + 4 + from));
        d[0] = fmaf(upper, left, d[0]), d[1] = fmaf(upper, right, d[1]);
        d[2] = fmaf(lower, left, d[2]), d[3] = fmaf(lower, right, d[3]);
    }
}
DEVICE unsigned near_operand(float value) { return float_bits(value); }
#endif
DEVICE unsigned missing_operand(float value, unsigned near) { return float_bits(value - tf32_value(near)); }

// sum += A @ B for one tile of 16 rows and N tiles of 8 columns, over the depths 8 * first ... 8 * last.
//
// load_a(k, float[4]) and load_b(k, n, float[2]) bring a lane's part of the k-th 8 of the depth; they may visit the depth in any
// order, if it is the same for both. Float32-grade by splitting an operand into two TF32 numbers; EXACT_A says that TF32 holds every
// value of A (pixels are whole numbers up to 255), so only B is split.
template <int N, bool EXACT_A, class LoadA, class LoadB>
DEVICE void multiply(float (&sum)[N][4], int first, int last, LoadA load_a, LoadB load_b) {
    for (int begin = first; begin < last; begin += CHUNK) {
        const int end = begin + CHUNK < last ? begin + CHUNK : last;
        float high[N][4] = {}, low[N][4] = {};
        for (int k = begin; k < end; ++k) {
            float a[4];
            load_a(k, a);
            unsigned a_high[4], a_low[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                a_high[i] = EXACT_A ? float_bits(a[i]) : near_operand(a[i]);
                if (SPLIT_TF32 && !EXACT_A) a_low[i] = missing_operand(a[i], a_high[i]);
            }
#pragma unroll
            for (int n = 0; n < N; ++n) {
                float b[2];
                load_b(k, n, b);
                const unsigned b_high[2] = {near_operand(b[0]), near_operand(b[1])};
                multiply_tile(high[n], a_high, b_high);
                if (SPLIT_TF32) {
                    const unsigned b_low[2] = {missing_operand(b[0], b_high[0]), missing_operand(b[1], b_high[1])};
                    multiply_tile(low[n], a_high, b_low);
                    if (!EXACT_A) multiply_tile(low[n], a_low, b_high);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[n][i] += high[n][i] + low[n][i];
    }
}

// The scalars of a step: what the update rule takes that is the same for all parameters; and the factor that makes a gradient of a sum
// over the samples. If the rule is just p - u * g the factor goes into u: once, not for each parameter.
struct Scalars {
    float values[SCALARS + 1];
    float gradient_scale;

    DEVICE explicit Scalars(const float* row, float scale = 1) : gradient_scale(scale) {
#pragma unroll
        for (int i = 0; i < SCALARS; ++i) values[i] = i == RATE_INDEX ? scale * row[i] : row[i];
    }

    // The parameter after the update. Slot s is slots[s * stride].
    DEVICE float updated(float parameter, float sum, float* slots, size_t stride) const {
        return apply_rule(parameter, RATE_INDEX < 0 ? sum * gradient_scale : sum, slots, stride, values);
    }
};

constexpr int CLASSES_PER_LANE = ceil_div(CLASSES, WARP);

// Loss of one sample, whether its answer is right, and the delta (the error) at its logits, by a warp. Lane i holds the scores of
// the classes i, i + 32, ...
struct Classified {
    float loss; // the same in all lanes
    bool hit;

    // Replaces the logits by the delta at the logits; `batch` is the number of samples in the minibatch.
    DEVICE Classified(float (&scores)[CLASSES_PER_LANE], int lane, int label, int batch) {
        float largest = -3.402823466e38f, of_label = 0;
#pragma unroll
        for (int i = 0; i < CLASSES_PER_LANE; ++i) {
            if (i * WARP + lane < CLASSES) largest = larger(largest, scores[i]);
            if (i * WARP + lane == label) of_label = scores[i];
        }
        largest = warp_max(largest);
        of_label = shuffle(of_label, label % WARP);
        int best = -1;
        float exponentials[CLASSES_PER_LANE], total = 0;
#pragma unroll
        for (int i = 0; i < CLASSES_PER_LANE; ++i) {
            const bool real = i * WARP + lane < CLASSES;
            const unsigned winners = ballot(real && scores[i] == largest);
            if (best < 0 && winners) best = i * WARP + first_bit(winners); // of equal scores the first
            exponentials[i] = real ? expf(scores[i] - largest) : 0;
            total += exponentials[i];
        }
        total = warp_sum(total);
        // The difference of two large float32 may overflow, so it is taken in float64.
        loss = (float)((double)largest - of_label + logf(total));
        hit = best == label;
#pragma unroll
        for (int i = 0; i < CLASSES_PER_LANE; ++i) {
            const float p = exponentials[i] / total;
            const float delta = p - (i * WARP + lane == label ? 1.0f : 0.0f);
            scores[i] = NOTEBOOK_GRADIENT ? delta * p * (1 - p) : delta / batch;
        }
    }
};

// Sum the losses and the hits of one minibatch, by a warp and always in the same order.
DEVICE void sum_minibatch(const float* losses, const uint8* hits, int begin, int end, int lane, double* loss, double* hit) {
    double loss_sum = 0, hit_sum = 0;
    for (int i = begin + lane; i < end; i += WARP) loss_sum += losses[i], hit_sum += hits[i];
    loss_sum = warp_sum(loss_sum), hit_sum = warp_sum(hit_sum);
    if (lane == 0) *loss = loss_sum, *hit = hit_sum;
}
