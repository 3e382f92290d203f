"""The engine for graphics processors: a kernel in Triton that takes networks through all layers in registers.

engine.py launches it over a shard, kernel.py is the loop over layers, roots.py makes Cholesky factors and symmetric
roots, arithmetic.py random normals and activations, moments.py adds observations up on the device. It compiles and runs
under Triton's interpreter, and has not yet run on a device (docs/design/graphics.md).
"""
