#define KERNEL extern "C" __global__ void CLUSTERED

// Every block sends 16 bytes to each of the cluster, and goes on when it has got those of all.
struct Mail {
    unsigned words[2][CLUSTER][4];
    ArrivalBarrier arrived[2];
};

KERNEL sends(int* out, int rounds) {
    Mail& mail = shared_memory<Mail>();
    const int rank = cluster_rank(), thread = thread_index();
    if (thread == 0)
        for (ArrivalBarrier& barrier : mail.arrived) arrival_init(&barrier);
    cluster_sync();
    for (int round = 0; round < rounds; ++round) {
        const int which = round % 2; // nobody sends for round + 2 before all have got what was sent for this one
        if (thread == 0) arrival_expect(&mail.arrived[which], 16 * CLUSTER);
        const unsigned words[4] = {(unsigned)round + 1, 0, 0, 0};
        if (thread < CLUSTER) store_async(mail.words[which][rank], thread, words, &mail.arrived[which]);
        arrival_wait(&mail.arrived[which], round / 2 % 2);
    }
    cluster_sync();
    if (thread == 0 && block_index() == 0) out[0] = (int)mail.words[(rounds - 1) % 2][CLUSTER - 1][0];
}
