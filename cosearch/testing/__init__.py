"""Conformance checks that a strategy, operation, space or environment has to pass, and small problems with known answers.

Part of the package, so that a third party can check an extension of its own.
"""
