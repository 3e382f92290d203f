"""K0, V4 and K1 over depth: the mean field, the closures, their recursion through the layers, ``predict``."""
