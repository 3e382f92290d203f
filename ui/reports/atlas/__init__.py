"""The atlas: what validity windows across networks teach, read off the results of ``studies/atlas.toml``."""
