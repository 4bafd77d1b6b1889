"""The Numba backend: kernels for the CPU, compiled at first use and cached on disk. All modules but `backend` import Numba."""
