"""Benchmarks whose results the README shows; each one is a module to run."""
