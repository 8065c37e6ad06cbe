"""Comparison of the equations with results of other simulators, row by row."""
