// One launch trains whole networks for an epoch: each cluster of thread blocks holds one network with one hidden layer, of up to 16
// classes, in its shared memory and its registers. Needs sm_90.
//
// The first layer's products take 16-bit operands (half_products.cuh). Its inputs are split over the blocks of the cluster, the samples
// of a minibatch too, and so are the small parameters (all but the first layer's weights). What a block is responsible for is called
// its own. A delta is the error at a layer: the derivative of the loss by what goes into its activation. A step:
//   1. each block multiplies all samples by its slice of the first layer and sends the partial sums of each sample to the block that
//      owns the sample; then it begins to fetch the next minibatch                                         -> PARTIAL_SUMS
//   2. each block adds them up for its samples, finishes forward and backward, and sends the delta of the hidden layer to all;
//      its part of the gradient of each small parameter goes to the block that owns the parameter          -> DELTA, SMALL_GRADIENTS
//   3. each block updates its slice of the first layer, and its small parameters, which it sends to all    -> SMALL_PARAMETERS
// No block waits for another but for the numbers that it needs: stores to other blocks are counted where they arrive. All barriers and
// waits are in this file.
//
// There are 16 logical slices of the inputs and 16 groups of the samples, of which a block has 16 / CLUSTER neighbours. Sums over them
// are binary trees, of which a block computes a branch: the result is the same bits for any CLUSTER (and the compiler must not fuse
// multiplications with additions as it sees fit: where that pays, fmaf is written out).
//
// Issue slots of a scheduler in a step of 784-32-10 at batch size 128, clusters of 16 (8): send_partial_sums 224 (460), fetching 120
// (212), train_samples 428 (514), send_small_gradients 84 (135), weights.update 332 (476), all else 178 (184): 1366 (1981), to which
// tests/backends/cupy/test_sass.py holds it.

// Bytes that come to a block in a phase of each kind.
DEVICE int bytes_of(Arrival kind, int rank) {
    if (kind == SMALL_GRADIENTS) return CLUSTER * numbers_of_own_small(rank) * (int)sizeof(float);
    return (kind == SMALL_PARAMETERS ? SMALL : ROWS * UNITS) * (int)sizeof(float); // two halves are as long as a float
}
DEVICE void expect(ClusterMemory& memory, Arrival kind, int rank) { arrival_expect(&memory.arrived[kind], bytes_of(kind, rank)); }

DEVICE void train(const ClusterArrays& arrays) {
    ClusterMemory& memory = shared_memory<ClusterMemory>();
    const int rank = cluster_rank(), warp = thread_index() / WARP, lane = thread_index() % WARP, steps = arrays.steps();
    if (steps == 0) return;
    Weights weights(rank, warp, lane);
    Fetcher fetcher(arrays, weights.first, weights.chunks);
    Labels labels = {};
    clear(memory);
    block_sync();
    visit_small(memory, arrays, rank, [](float& shared, float& global, bool) { shared = global; });
    for (int row = thread_index(); row < OWN_ROWS; row += THREADS)
        memory.rows[row].hidden[UNITS] = 1, memory.rows[row].hidden[UNITS + 1] = 1 / DELTA_SCALE;
    weights.load(memory, arrays.state);
    fetcher.look_up(arrays, 0);
    fetcher.start(memory, 0);
    fetcher.look_up(arrays, 1);
    for (int step = 0; step < 2; ++step) labels.advance(arrays, rank, warp, lane, step);
    copy_wait();
    const bool has_small = first_own_small(warp) < numbers_of_own_small(rank);
    if (thread_index() == 0) {
        for (int kind = 0; kind < ARRIVALS; ++kind) {
            arrival_init(&memory.arrived[kind]);
            if (kind != SMALL_GRADIENTS || numbers_of_own_small(rank) > 0) expect(memory, (Arrival)kind, rank);
        }
    }
    cluster_sync(); // every block has begun, so that others may write to its memory
    for (int step = 0; step < steps; ++step) {
        const int buffer = step % 2;
        const Scalars of_step(arrays.scalars + (size_t)step * SCALARS); // read long before they are needed
        send_partial_sums(memory, rank, buffer, warp, lane);
        fetcher.start(memory, 1 - buffer); // while the partial sums are on their way
        fetcher.look_up(arrays, step + 2);
        if (has_samples(warp)) {
            labels.advance(arrays, rank, warp, lane, step + 2);
            if (step > 0) {
                arrival_wait(&memory.arrived[SMALL_PARAMETERS], 1 - buffer);
                if (thread_index() == 0) expect(memory, SMALL_PARAMETERS, rank);
            }
            arrival_wait(&memory.arrived[PARTIAL_SUMS], buffer);
            if (thread_index() == 0) expect(memory, PARTIAL_SUMS, rank);
#pragma unroll
            for (int i = 0; i < SAMPLE_ROUNDS; ++i)
                if (has_samples(i * WARPS + warp))
                    train_samples(memory, arrays, rank, labels.now[i], WARP_ROWS * (i * WARPS + warp), step, lane);
        }
        block_sync();
        send_small_gradients(memory, rank);
        judge_samples(memory, arrays, rank, step);
        arrival_wait(&memory.arrived[DELTA], buffer);
        if (thread_index() == 0) expect(memory, DELTA, rank);
        weights.update(memory, buffer, Scalars(of_step.values, PIXEL_SCALE / DELTA_SCALE));
        if (has_small) {
            arrival_wait(&memory.arrived[SMALL_GRADIENTS], buffer);
            if (first_own_small(warp) == 0 && lane == 0) expect(memory, SMALL_GRADIENTS, rank);
            update_small(memory, rank, of_step, warp, lane);
        }
        copy_wait();
        block_sync();
    }
    arrival_wait(&memory.arrived[SMALL_PARAMETERS], (steps - 1) % 2);
    cluster_sync(); // all losses have arrived
    weights.store(arrays.state);
    visit_small(memory, arrays, rank, [](float& shared, float& global, bool own) {
        if (own) global = shared;
    });
    sum_minibatches(arrays, rank, warp, lane);
}

CLUSTER_KERNEL(train_epoch, train)
