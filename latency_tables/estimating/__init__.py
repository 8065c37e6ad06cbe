"""Tables that nobody measured, and what they are worth.

- ``roofline``: seconds of an operation from the constants of a device; ``specification``: these constants with their sources.
- ``estimate``: the table of a specification; ``published``: its constants fitted to published latencies of blocks.
- ``evidence``: the error of such fits on blocks that they have not seen.

Whatever is made here says ``estimated``. Nothing here knows measurements of ours.
"""
