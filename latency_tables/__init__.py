"""Latency tables: what each operation costs on a device, measured there or estimated, and so what a network of them costs.

Floors. A file imports from lower floors and from its own floor, but no room (a folder) from another room of its floor:

    6  commands, __main__                       the command line
    5  devices, checks, compare, showing        tables found by name, judged, compared and shown
    4  table                                    predicts a network from its rows
    3  measuring, estimating, importing         tables made: by timing models on a device, from public figures, from other files
    2  onnx_models                              the models that are timed
    1  schema, header, certificate, worklists   the files: a table, its parts, and what a table must hold
    1  opspec                                   the one vocabulary of operations, shared with networks and accelerators
    1  kinds                                    its kinds beside those of plain convolutional networks: cells, vectors, memories
    1  runtimes                                 what the runtimes of devices can load
    0  board, errors                            what is copied to a board; the errors of the whole project
    0  text                                     what is read and written: files, the terminal, Markdown

The other packages use ``opspec``, ``errors``, ``table``, ``devices`` and ``worklists``, and of the rooms ``measuring.job`` (a
table from a request) with its ``settings``, ``measuring.remote`` (a measuring core, here or on a board) and the records and
runners of ``board``. Tables lie in folders named after their devices, specifications of estimates in ``specs``.
"""
