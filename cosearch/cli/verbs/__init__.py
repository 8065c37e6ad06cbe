"""Verbs with options of their own, a file each; importing all of them, as ``cli.app`` does, adds them to the program.

The verbs of a single run (``search``, ``resume``, ``report`` and so on) are in ``cli.commands``.
"""
