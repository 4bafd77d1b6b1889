// What all kernels share, those of the ops and those of the paths. The host defines WARP.
using uint8 = unsigned char;

static_assert(WARP == 32, "lanes that the shuffles exchange between");

DEVICE constexpr int ceil_div(int n, int unit) { return (n + unit - 1) / unit; }

// The least power of two that is not below n.
DEVICE constexpr int power_of_two(int n) { return n <= 1 ? 1 : 2 * power_of_two(ceil_div(n, 2)); }

// The larger of two numbers; a, if one of them is NaN.
template <class T> DEVICE T larger(T a, T b) { return b > a ? b : a; }

// The largest of the values of a warp's lanes, and their sum in a fixed order; all lanes get it.
template <class T> DEVICE T warp_max(T value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) value = larger(value, shuffle_xor(value, mask));
    return value;
}

template <class T> DEVICE T warp_sum(T value) {
#pragma unroll
    for (int mask = WARP / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}
