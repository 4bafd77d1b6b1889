// Softmax, loss, right answers (hits) and the delta (the error) at the logits, a warp for each sample. The host defines LABEL, the
// type of the labels.
using Label = LABEL;

struct Totals {
    double loss, hits;

    DEVICE void add(double loss_of_more, double more_hits) { loss += loss_of_more, hits += more_hits; }
};

// Loss of one sample, whether its answer is right, and the delta at its logits, which replaces them; by a warp. All lanes return the
// same. Lane i reads and writes the logits i, i + 32, ..., and no others.
DEVICE Totals classify_sample(Real* scores, long long label, bool notebook, int width, int n, int lane) {
    Real largest = log((Real)0), of_label = 0, sum = 0;
    for (int j = lane; j < width; j += WARP) {
        largest = larger(largest, scores[j]);
        if (j == label) of_label = scores[j];
    }
    largest = warp_max(largest);
    for (int j = lane; j < width; j += WARP) sum += exp(scores[j] - largest);
    sum = warp_sum(sum);
    const bool is_class = label >= 0 && label < width;
    of_label = shuffle(of_label, is_class ? (int)(label % WARP) : 0);
    bool beaten = !is_class; // of equal scores the first counts
    for (int j = lane; j < width; j += WARP) beaten |= j < label ? !(scores[j] < of_label) : !(scores[j] <= of_label);
    const bool hit = !ballot(beaten);
    for (int j = lane; j < width; j += WARP) {
        const Real p = exp(scores[j] - largest) / sum, delta = p - (j == label ? (Real)1 : (Real)0);
        scores[j] = notebook ? delta * p * (1 - p) : delta / n;
    }
    // The difference of two large float32 may overflow, so it is taken in float64.
    return {(double)largest - (double)of_label + (double)log(sum), hit ? 1.0 : 0.0};
}

struct BlockTotals {
    Totals of_warp[WARPS];
    bool last;
};
static_assert(sizeof(BlockTotals) <= SHARED_BYTES, "the host asks for too little shared memory");

// The sum over the warps of the block of what each has found, in a fixed order; only thread 0 gets it.
DEVICE Totals block_total(BlockTotals& memory, Totals found) {
    const int warp = thread_index() / WARP, lane = thread_index() % WARP;
    if (lane == 0) memory.of_warp[warp] = found;
    block_sync();
    Totals total = {0, 0};
    if (thread_index() == 0)
        for (int i = 0; i < WARPS; ++i) total.add(memory.of_warp[i].loss, memory.of_warp[i].hits);
    return total;
}

// logits (n, width) become the delta at them; totals (2,): the sums of losses and of hits. of_block: memory for the sums of each
// block, which the last block to end adds up in the order of the blocks. counter: 0, and 0 again afterwards.
KERNEL classify(Real* logits, const Label* y, double* totals, Totals* of_block, unsigned* counter, int notebook, int width,
                int n) {
    BlockTotals& memory = shared_memory<BlockTotals>();
    const int warp = thread_index() / WARP, lane = thread_index() % WARP, blocks = ceil_div(n, WARPS);
    const int sample = block_index() * WARPS + warp;
    Totals found = {0, 0};
    if (sample < n) found = classify_sample(logits + (long long)sample * width, (long long)y[sample], notebook, width, n, lane);
    const Totals total = block_total(memory, found);
    if (thread_index() == 0) {
        of_block[block_index()] = total;
        memory.last = last_block(counter, blocks);
    }
    block_sync();
    if (!memory.last) return;
    found = {0, 0};
    for (int block = thread_index(); block < blocks; block += THREADS) found.add(of_block[block].loss, of_block[block].hits);
    found = {warp_sum(found.loss), warp_sum(found.hits)};
    const Totals all = block_total(memory, found);
    if (thread_index() == 0) totals[0] = all.loss, totals[1] = all.hits;
}
