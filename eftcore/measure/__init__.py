"""Kernels of a user's own torch module at initialisation, judged by theory (docs/theory.md, section 12)."""
