"""From a list of blocks to a table: what to visit, on which connection, in which order, and how visits become rows."""
