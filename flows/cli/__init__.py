"""The ``eft`` command, with a module for each group of commands. It may import everything, and nothing imports it."""

from flows.cli.app import main

__all__ = ["main"]
