// A launch that does nothing, and what it costs threads to wait for each other, in a block and in a cluster.
#define KERNEL extern "C" __global__ void CLUSTERED

KERNEL nothing(int* out) {
    if (thread_index() == 0 && block_index() == 0) out[0] = 1;
}

KERNEL cluster_barriers(int* out, int rounds) {
    for (int round = 0; round < rounds; ++round) cluster_sync();
    if (thread_index() == 0 && block_index() == 0) out[0] = rounds;
}

KERNEL block_barriers(int* out, int rounds) {
    for (int round = 0; round < rounds; ++round) block_sync();
    if (thread_index() == 0 && block_index() == 0) out[0] = rounds;
}
