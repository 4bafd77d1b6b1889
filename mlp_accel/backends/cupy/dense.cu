// What is left to do for a layer when cuBLAS has computed the product. The host puts the activation before this.

// z: the product (samples, width), n numbers in all, to which the bias is added. output may be the same memory, unless KEEPS_INPUT:
// then the slope of the activation needs z later.
KERNEL finish_layer(Real* z, const Real* bias, Real* output, int width, long long n) {
    const long long i = element();
    if (i >= n) return;
    const Real sum = z[i] + bias[column_of(i, width)];
    if (KEEPS_INPUT) z[i] = sum;
    output[i] = activate(sum);
}

// delta: the error at what the units put out becomes the one before their activation; kept: what the slope is a function of.
KERNEL multiply_slope(Real* delta, const Real* kept, long long n) {
    const long long i = element();
    if (i < n) delta[i] = times_slope(delta[i], kept[i]);
}
