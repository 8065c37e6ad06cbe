"""Benchmarks whose results the documentation shows, in rooms by what they ask; ``peers`` has what they are compared with."""
