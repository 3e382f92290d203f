"""The ``eft`` command: a module for each noun; it may import everything, and nothing imports it."""

from flows.cli.app import main

__all__ = ["main"]
