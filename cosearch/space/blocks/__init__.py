"""Blocks and heads that compute in a way of their own: their gradients, memories, inverses, and outputs while they learn."""
