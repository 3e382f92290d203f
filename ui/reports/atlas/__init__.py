"""The atlas: what validity windows across many networks teach, from the results of ``studies/atlas.toml``."""
