"""Search strategies, one file a method: paper, equations, what differs from the paper, code.

A file that registers a strategy here is found by itself. Strategies receive callables and import nothing of the learning code.
"""
