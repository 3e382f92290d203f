"""The audit of the paper: its statements, figures and numbers against the results of ``studies/paper.toml``."""
