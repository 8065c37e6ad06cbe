"""The search of a design: the problem, the methods, and the controls that they are compared with."""
