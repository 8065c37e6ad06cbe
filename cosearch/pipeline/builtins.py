"""Registers the strategies, spaces and environments that ship with the package, by importing their modules."""
from __future__ import annotations

import importlib

MODULES = ("cosearch.space.chain", "cosearch.space.cell", "cosearch.rl.procgen_env", "cosearch.rl.gym_env",
           "cosearch.strategies.one_level", "cosearch.strategies.score_function", "cosearch.strategies.rl_darts",
           "cosearch.strategies.darts", "cosearch.strategies.snas", "cosearch.strategies.random_search")


def load_builtins() -> None:
    """Import every module that registers something; harmless when called again."""
    for name in MODULES:
        importlib.import_module(name)
