// The cluster kernel as a function that Python can call. The kernel's source is put in by the build.
#include "shim.h"
#include KERNEL_SOURCE

extern "C" int run(const uint8* images, const int* labels, const int* order, const float* learning_rates, float* hidden_weights,
                   float* hidden_bias, float* output_weights, float* output_bias, float* losses, uint8* hits, double* batch_losses,
                   double* batch_hits, int n, int networks, unsigned seed, int truncate, int fault_line, int fault) {
    const shim::Settings settings{seed, truncate != 0, fault_line, (shim::Fault)fault};
    auto kernel = [=] {
        train_epoch(images, labels, order, learning_rates, hidden_weights, hidden_bias, output_weights, output_bias, losses, hits,
                    batch_losses, batch_hits, n);
    };
    return shim::launch(kernel, networks * CLUSTER, CLUSTER, THREADS, sizeof(Memory), settings);
}
