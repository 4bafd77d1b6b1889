// What is left of a layer when the product is done. The host puts the activation before this.

// z: the product (rows, width), to which the bias is added; output may be the same memory unless KEEPS_INPUT.
KERNEL finish_layer(Real* z, const Real* bias, Real* output, int width, long long n) {
    const long long i = element();
    if (i >= n) return;
    const Real sum = z[i] + bias[column_of(i, width)];
    if (KEEPS_INPUT) z[i] = sum;
    output[i] = activate(sum);
}

KERNEL multiply_slope(Real* error, const Real* kept, long long n) {
    const long long i = element();
    if (i < n) error[i] = times_slope(error[i], kept[i]);
}
