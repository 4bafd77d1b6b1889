// What is left to do for a layer when cuBLAS has computed the product. The host puts the activation before this.

// z: the product (samples, width), n numbers in all, to which the bias is added. output may be the same memory, unless
// SLOPE_OF_INPUT: then the slope of the activation is computed from z later.
KERNEL finish_layer(Real* z, const Real* bias, Real* output, int width, long long n) {
    const long long i = element();
    if (i >= n) return;
    const Real sum = z[i] + bias[column_of(i, width)];
    if (SLOPE_OF_INPUT) z[i] = sum;
    output[i] = activate(sum);
}

// delta: the derivative of the loss by the outputs of the units becomes that by what goes into their activation. slope_input: what
// the slope is computed from.
KERNEL multiply_slope(Real* delta, const Real* slope_input, long long n) {
    const long long i = element();
    if (i < n) delta[i] = times_slope(delta[i], slope_input[i]);
}
