"""The faster paths of the Numba backend, a folder each."""
