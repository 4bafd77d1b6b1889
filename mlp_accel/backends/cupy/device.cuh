// The few things that the kernels ask of a GPU, one PTX instruction or intrinsic each. NVRTC needs no header for them.
// tests/backends/cupy/shim.h has the same names for a CPU; nothing else in these sources depends on where they run.
#define DEVICE __device__ __forceinline__

DEVICE int thread_index() { return (int)threadIdx.x; }
DEVICE int block_index() { return (int)blockIdx.x; }

// Memory of the block: a struct that the launch has asked room for.
template <class T> DEVICE T& shared_memory() {
    extern __shared__ __align__(128) unsigned char memory[];
    return *reinterpret_cast<T*>(memory);
}

// Barriers. Each also makes what its threads wrote before it visible to them after it.
DEVICE void warp_sync() { __syncwarp(); }
DEVICE void block_sync() { __syncthreads(); }

// Whether this block is the last of `blocks` to come here; asked by one thread of each. What those threads wrote before is visible
// to the one that is told so. The counter starts at 0, and is 0 again afterwards.
DEVICE bool last_block(unsigned* counter, int blocks) {
    __threadfence();
    const bool last = atomicInc(counter, (unsigned)blocks - 1) == (unsigned)blocks - 1;
    __threadfence();
    return last;
}

// A kernel whose blocks run in clusters, if the host says how large they are.
#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
DEVICE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}
DEVICE int cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return (int)rank;
}
DEVICE unsigned remote_address(const void* own, int rank) {
    unsigned address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"((unsigned)__cvta_generic_to_shared(own)), "r"(rank));
    return address;
}
// Stores to the shared memory of block `rank` of the cluster, at the same offset that `own` has in the memory of this block.
DEVICE void store_remote(float* own, int rank, float a) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(remote_address(own, rank)), "f"(a) : "memory");
}
DEVICE void store_remote(float* own, int rank, float a, float b) {
    asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(remote_address(own, rank)), "f"(a), "f"(b) : "memory");
}
#else
#define CLUSTERED
DEVICE void cluster_sync() { __syncthreads(); }
DEVICE int cluster_rank() { return 0; }
DEVICE void store_remote(float* own, int, float a) { *own = a; }
DEVICE void store_remote(float* own, int, float a, float b) { own[0] = a, own[1] = b; }
#endif

// Stores to global memory, for other blocks of the cluster to read after a cluster barrier.
template <class T> DEVICE void store_for_cluster(T* to, T value) { *to = value; }

// Copies from global to shared memory that run on their own, until copy_wait.
DEVICE void copy_async16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
DEVICE void copy_async4(void* to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
DEVICE void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Barriers of one block that count what others send to it (PTX: mbarrier): a phase ends when a thread of the block has said how many
// bytes it expects, once, and as many have come by store_async. Phases take turns: their parity is 0, 1, 0, 1, ... Needs sm_90.
using ArrivalBarrier = unsigned long long;
DEVICE unsigned shared_address(const void* own) { return (unsigned)__cvta_generic_to_shared(own); }
DEVICE void arrival_init(ArrivalBarrier* barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;" ::"r"(shared_address(barrier)) : "memory");
}
DEVICE void arrival_expect(ArrivalBarrier* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Returns when the phase of that parity has ended; what has come in it is visible.
DEVICE void arrival_wait(ArrivalBarrier* barrier, int parity) {
    asm volatile("{\n\t.reg .pred done;\nAGAIN:\n\t"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n\t@!done bra AGAIN;\n}"
                 ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}
// Stores 16 bytes to the shared memory of block `rank` of the cluster, at the offset that `own` has here, and counts them at that
// block's barrier. The store goes its own way (PTX: st.async).
DEVICE void store_async(void* own, int rank, const unsigned (&words)[4], ArrivalBarrier* barrier) {
    unsigned to, count_at;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(to) : "r"(shared_address(own)), "r"(rank));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(count_at) : "r"(shared_address(barrier)), "r"(rank));
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];"
                 ::"r"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]), "r"(count_at) : "memory");
}

// Exchange within a warp; the masks name all of its 32 lanes.
template <class T> DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <class T> DEVICE T shuffle(T value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
DEVICE unsigned ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }
DEVICE int first_bit(unsigned bits) { return __ffs((int)bits) - 1; }

// TF32: float32 with 10 bits after the point. Rounded to nearest; the bits are those of a float32.
DEVICE unsigned to_tf32(float value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}
DEVICE float tf32_value(unsigned bits) { return __uint_as_float(bits); }

// d += a @ b on a tensor core: a (16, 8), b (8, 8), spread over the warp as PTX lays out mma.m16n8k8.
// With g = lane / 4 and t = lane % 4: a = {(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)}, b = {(t, g), (t + 4, g)},
// d = {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)}.
DEVICE void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Byte `index` of `word` as a float: put below the bits of 2^23, which is then taken away. Cheaper than a conversion.
DEVICE float byte_as_float(unsigned word, int index) {
    return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u + (unsigned)index)) - 8388608.0f;
}

// Half precision: two numbers in a word, the first below; rounded to nearest, ties to even.
DEVICE unsigned pack_halves(float a, float b) {
    unsigned word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(b), "f"(a));
    return word;
}
DEVICE void unpack_halves(unsigned word, float& a, float& b) {
    asm("{.reg .f16 low, high;\n\tmov.b32 {low, high}, %2;\n\tcvt.f32.f16 %0, low;\n\tcvt.f32.f16 %1, high;}" : "=f"(a), "=f"(b) : "r"(word));
}
DEVICE unsigned float_bits(float value) { return __float_as_uint(value); }

// Four matrices of 8 x 8 halves from shared memory: lane i brings the address of row i % 8 of matrix i / 8, which is 16 bytes. Lane
// 4g + t gets of each matrix the elements (g, 2t) and (g, 2t + 1); transposed, (2t, g) and (2t + 1, g).
DEVICE void load_matrices(unsigned (&d)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}
DEVICE void load_matrices_transposed(unsigned (&d)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}
// d += a @ b as PTX lays out mma.m16n8k16 of halves: a (16, 16), b (16, 8). a = {(g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)},
// each with its right neighbour; b = {(2t, g), (2t + 8, g)}, each with its lower neighbour; d as in mma_tf32.
DEVICE void mma_half(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x, whose largest relative error is about 2^-22; and 1 / x, to the last bit.
DEVICE float exponential2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
