"""The command line: one file per verb, imported only when its verb is used."""

from lavie.cli.app import main

__all__ = ["main"]
