// The ops of the backend that are not products, one launch each. Rows of scores are taken by a warp, all else element by element.
//
// The host defines REAL (float, double), its SMALLEST_NORMAL number and LABEL (an integer type), and asks for THREADS threads in a block.
using uint8 = unsigned char;
using Real = REAL;
using Label = LABEL;

constexpr int WARP = 32;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr Real PIXEL_SCALE = (Real)(1.0 / 255.0);

enum Activation { TANH, RELU, SIGMOID, IDENTITY };

DEVICE long long element() { return (long long)block_index() * THREADS + thread_index(); }
DEVICE long long column_of(long long i, int width) { return i >> 32 ? i % width : (unsigned)i % (unsigned)width; }
DEVICE long long row_of(long long i, int width) { return i >> 32 ? i / width : (unsigned)i / (unsigned)width; }

DEVICE Real larger(Real a, Real b) { return b > a ? b : a; }

DEVICE Real warp_max(Real value) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) value = larger(value, shuffle_xor(value, mask));
    return value;
}

template <class T> DEVICE T warp_sum(T value) {
    for (int mask = WARP / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

DEVICE Real row_max(const Real* row, int width, int lane) {
    Real largest = row[0];
    for (int j = lane; j < width; j += WARP) largest = larger(largest, row[j]);
    return warp_max(largest);
}

DEVICE Real row_exp_sum(const Real* row, int width, int lane, Real largest) {
    Real sum = 0;
    for (int j = lane; j < width; j += WARP) sum += exp(row[j] - largest);
    return warp_sum(sum);
}

// Sum of value(row) over the rows, by one block and in a fixed order; each warp computes the value of a row with all lanes.
template <class Value> DEVICE void sum_rows(int rows, double* sum, Value value) {
    auto& sums = shared_memory<double[WARPS]>();
    const int warp = thread_index() / WARP, lane = thread_index() % WARP;
    double own = 0;
    for (int row = warp; row < rows; row += WARPS) own += value(row, lane);
    if (lane == 0) sums[warp] = own;
    block_sync();
    if (thread_index() > 0) return;
    double total = 0;
    for (int i = 0; i < WARPS; ++i) total += sums[i];
    *sum = total;
}

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

KERNEL scale_pixels(const uint8* pixels, Real* out, long long n) {
    const long long i = element();
    if (i < n) out[i] = pixels[i] * PIXEL_SCALE;
}

KERNEL gather_pixels(const uint8* images, const long long* rows, Real* out, int width, long long n) {
    const long long i = element();
    if (i < n) out[i] = images[rows[row_of(i, width)] * width + column_of(i, width)] * PIXEL_SCALE;
}

KERNEL add_bias(Real* z, const Real* bias, int activation, int width, long long n) {
    const long long i = element();
    if (i >= n) return;
    const Real value = z[i] + bias[column_of(i, width)];
    if (activation == TANH) {
        z[i] = tanh(value);
    } else if (activation == RELU) {
        z[i] = value < 0 ? (Real)0 : value; // keeps NaN
    } else if (activation == SIGMOID) {
        const Real e = exp(value < 0 ? value : -value); // never overflows
        z[i] = (value >= 0 ? (Real)1 : e) / (1 + e);
    } else {
        z[i] = value;
    }
}

KERNEL multiply_slope(Real* error, const Real* activations, int activation, long long n) {
    const long long i = element();
    if (i >= n) return;
    const Real a = activations[i];
    if (activation == TANH)
        error[i] *= 1 - a * a;
    else if (activation == RELU)
        error[i] *= a > 0 ? 1 : 0;
    else
        error[i] *= a * (1 - a);
}

KERNEL softmax(const Real* logits, Real* out, int width, int rows) {
    const int row = (int)(element() / WARP), lane = thread_index() % WARP;
    if (row >= rows) return;
    const Real* scores = logits + (long long)row * width;
    const Real largest = row_max(scores, width, lane), sum = row_exp_sum(scores, width, lane, largest);
    for (int j = lane; j < width; j += WARP) out[(long long)row * width + j] = exp(scores[j] - largest) / sum;
}

KERNEL cross_entropy(const Label* y, const Real* y_hat, double* sum, int width, int rows) {
    sum_rows(rows, sum, [&](int row, int) {
        const long long label = (long long)y[row];
        if (label < 0 || label >= width) return 0.0; // no class
        const Real p = y_hat[(long long)row * width + label];
        return -(double)log(p < (Real)SMALLEST_NORMAL ? (Real)SMALLEST_NORMAL : p);
    });
}

KERNEL cross_entropy_from_logits(const Label* y, const Real* logits, double* sum, int width, int rows) {
    sum_rows(rows, sum, [&](int row, int lane) {
        const long long label = (long long)y[row];
        const Real* scores = logits + (long long)row * width;
        const Real largest = row_max(scores, width, lane), total = row_exp_sum(scores, width, lane, largest);
        const Real of_label = label < 0 || label >= width ? (Real)0 : scores[label];
        // The difference of two large float32 may overflow, so it is taken in float64.
        return (double)largest - (double)of_label + (double)log(total);
    });
}

KERNEL correct(const Label* y, const Real* scores, double* sum, int width, int rows) {
    sum_rows(rows, sum, [&](int row, int lane) {
        const long long label = (long long)y[row];
        if (label < 0 || label >= width) return 0.0;
        const Real* of_row = scores + (long long)row * width;
        bool beaten = false; // of equal scores the first counts
        for (int j = lane; j < width; j += WARP)
            beaten |= j < label ? !(of_row[j] < of_row[label]) : !(of_row[j] <= of_row[label]);
        return ballot(beaten) ? 0.0 : 1.0;
    });
}

KERNEL output_delta(const Label* y, const Real* y_hat, Real* out, int notebook, int width, int rows) {
    const long long i = element();
    if (i >= (long long)rows * width) return;
    const Real p = y_hat[i], error = p - ((long long)y[row_of(i, width)] == column_of(i, width) ? 1 : 0);
    out[i] = notebook ? error * p * (1 - p) : error / rows;
}

KERNEL sgd_update(const Real* parameter, const Real* grad, Real* out, Real learning_rate, long long n) {
    const long long i = element();
    if (i < n) out[i] = parameter[i] - learning_rate * grad[i];
}
