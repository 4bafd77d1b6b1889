"""The faster paths of the CuPy backend: each with its kernel beside it."""
