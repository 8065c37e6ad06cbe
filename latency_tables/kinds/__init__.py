"""Kinds of blocks: their layers, and what is wrong with an operation that cannot be; ``opspec`` joins them to one vocabulary."""
