"""The space of cells (RL-DARTS, DARTS): graphs of operations, how they are built, ordered and drawn."""
