"""The audit report: the paper's statements, figures and tables against the results of ``studies/paper.toml``."""
