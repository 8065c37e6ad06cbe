"""Which options have an effect in a run: the conditions, and the table of all options with theirs."""
