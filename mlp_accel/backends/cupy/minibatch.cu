// Gathers the samples of a minibatch. The host defines PIXEL and LABEL, the types of a sample's values and of the labels.
using Pixel = PIXEL;
using Label = LABEL;

constexpr Real SCALE = sizeof(Pixel) == 1 ? (Real)(1.0 / 255.0) : (Real)1;

// Where the sample of that number is among all, a negative one counted from the end; -1 if there is none.
DEVICE long long place_of(long long sample, long long all) {
    const long long place = sample < 0 ? sample + all : sample;
    return place >= 0 && place < all ? place : -1;
}

// x (all, width), y (all,); samples (size,): which of them the minibatch has; batch_x (size, width), n numbers in all; batch_y (size,).
// The host does not wait to see the numbers of the samples: one that there is not becomes NaN, which shows in the loss.
KERNEL gather(const Pixel* x, const Label* y, const long long* samples, Real* batch_x, Label* batch_y, int width, int size, long long n,
              long long all) {
    const long long i = element();
    if (i < n) {
        const long long place = place_of(samples[row_of(i, width)], all);
        batch_x[i] = place < 0 ? log((Real)-1) : x[place * width + column_of(i, width)] * SCALE;
    }
    if (i < size) {
        const long long place = place_of(samples[i], all);
        batch_y[i] = place < 0 ? (Label)0 : y[place];
    }
}
