"""The fused pass on processors: networks side by side in vector registers, compiled by numba."""
