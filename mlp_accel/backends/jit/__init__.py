"""Kernels for the CPU, compiled by Numba at first use and cached on disk. Importing a module of this package imports Numba."""
