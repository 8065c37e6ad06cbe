"""``python -m cosearch``."""

from cosearch.cli.app import program

program()
