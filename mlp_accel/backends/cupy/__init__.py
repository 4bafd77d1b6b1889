"""The CuPy backend, for NVIDIA GPUs."""
