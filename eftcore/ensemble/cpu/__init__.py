"""The engine for processors: LANES networks side by side in vector registers, compiled by numba and LLVM.

engine.py runs it over a shard, kernel.py is the loop over layers, tile_pass.py and layer_step.py are what a layer does
to neurons and to covariances, factor.py makes Cholesky factors, vector_math.py random normals and functions, sigma.py
has the activations, lanes.py writes vector instructions, moments.py adds observations up. docs/design/processors.md
says why and how fast.
"""
