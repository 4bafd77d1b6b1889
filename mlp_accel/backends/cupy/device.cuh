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

// Copies from global to shared memory that run on their own, until copy_wait.
DEVICE void copy_async16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
DEVICE void copy_async4(void* to, const void* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
DEVICE void copy_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

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
