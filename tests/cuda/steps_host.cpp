// The step kernels as functions that Python can launch, by their address. The source is put in by the build.
#include "shim.h"
#include KERNEL_SOURCE

using Kernel = decltype(&sum_losses);

extern "C" int run(Kernel kernel, int blocks, float* parameters, float* outputs, float* deltas, const Pixel* images, const int* labels,
                   const int* order, float* losses, uint8* hits, double* batch_losses, double* batch_hits, float learning_rate, int n,
                   int step, unsigned seed, int truncate, int fault_line, int fault) {
    const shim::Settings settings{seed, truncate != 0, fault_line, (shim::Fault)fault};
    auto body = [=] {
        kernel(parameters, outputs, deltas, images, labels, order, losses, hits, batch_losses, batch_hits, learning_rate, n, step);
    };
    return shim::launch(body, blocks, 1, THREADS, sizeof(Memory), settings);
}
