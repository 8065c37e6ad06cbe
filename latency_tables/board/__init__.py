"""What runs on a board: this folder and ``errors`` are copied there, nothing else is.

Only the standard library, numpy and the runtime that is measured may be imported; Python 3.8 syntax.
"""
