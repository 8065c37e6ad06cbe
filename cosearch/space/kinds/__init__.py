"""The kinds of spaces: chains, macro choices, stacks of layers, hand-made networks, and the reading of their values."""
