"""The Numba backend: kernels for the CPU, compiled at first use and cached on disk. Its modules but `backend` import Numba."""
