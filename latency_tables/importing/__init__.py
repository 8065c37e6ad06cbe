"""Latencies that were measured elsewhere become a table: CSV, and the look-up tables of nn-Meter and of once-for-all.

``formats`` reads each kind of file into rows; ``table`` makes of them a table whose provenance is ``imported``. It is checked
like any other one.
"""
