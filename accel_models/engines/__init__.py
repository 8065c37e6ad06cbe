"""How one layer runs on an array: systolic dataflows, tiles, loop nests, and the traffic that they cause."""
