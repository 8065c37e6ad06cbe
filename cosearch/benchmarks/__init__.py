"""Benchmarks whose results the documentation shows; each one is a module to run, and saves what it found beside itself."""
