"""Search strategies, one file a method in the folder of its kind: paper, equations, what differs from the paper, code.

A file that registers a strategy is found by itself. Strategies receive callables and import nothing of the learning code. What
methods are put together from lies beside their folders.
"""
