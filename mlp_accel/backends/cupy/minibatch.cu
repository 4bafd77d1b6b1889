// Gathers the samples of a minibatch. The host defines PIXEL and LABEL, types of what is gathered.
using Pixel = PIXEL;
using Label = LABEL;

constexpr Real SCALE = sizeof(Pixel) == 1 ? (Real)(1.0 / 255.0) : (Real)1;

// x (…, width), y (…,): n_rows rows of them, n numbers in all.
KERNEL gather(const Pixel* x, const Label* y, const long long* rows, Real* x_rows, Label* y_rows, int width, int n_rows,
              long long n) {
    const long long i = element();
    if (i < n) x_rows[i] = x[rows[row_of(i, width)] * width + column_of(i, width)] * SCALE;
    if (i < n_rows) y_rows[i] = y[rows[i]];
}
