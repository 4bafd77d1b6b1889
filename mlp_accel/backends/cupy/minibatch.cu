// Gathers the samples of a minibatch. The host defines PIXEL and LABEL, the types of a sample's values and of the labels.
using Pixel = PIXEL;
using Label = LABEL;

constexpr Real SCALE = sizeof(Pixel) == 1 ? (Real)(1.0 / 255.0) : (Real)1;

// x (all samples, width), y (all samples,); samples (size,): which of them the minibatch has; to_x (size, width), n numbers in all;
// to_y (size,).
KERNEL gather(const Pixel* x, const Label* y, const long long* samples, Real* to_x, Label* to_y, int width, int size, long long n) {
    const long long i = element();
    if (i < n) to_x[i] = x[samples[row_of(i, width)] * width + column_of(i, width)] * SCALE;
    if (i < size) to_y[i] = y[samples[i]];
}
