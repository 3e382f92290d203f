"""``python -m flows.cli``: the same as ``eft``."""

from flows.cli.app import main

if __name__ == "__main__":
    main()
