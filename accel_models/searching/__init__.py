"""The search of a design: the problem, the search by gradient with its discrete polish, and other methods to compare it with."""
