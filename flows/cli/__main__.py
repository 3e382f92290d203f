"""``python -m flows.cli``: the same as ``eft``."""

from flows.cli.app import main

main()
