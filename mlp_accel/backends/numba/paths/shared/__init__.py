"""What the paths of the Numba backend share: whole epochs in compiled code, whatever the samples look like."""
