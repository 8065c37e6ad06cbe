"""Options of every registered strategy: numbers that are not finite, and those out of their range, are refused in words."""

import dataclasses
import importlib
import math
import pkgutil
import typing

import pytest
from pydantic import TypeAdapter, ValidationError

import cosearch.strategies
from cosearch.config.search import StrategyConfig
from cosearch.planning.builtins import load_builtins
from cosearch.strategies.base import STRATEGIES
from latency_tables.errors import ConfigError

load_builtins()


def option_classes():
    """Every dataclass of options in the package, and those of the registered strategies, by name."""
    found = {type(info.options(StrategyConfig(name=info.name))) for info in STRATEGIES.entries()}
    for module in pkgutil.walk_packages(cosearch.strategies.__path__, "cosearch.strategies."):
        members = vars(importlib.import_module(module.name)).values()
        found |= {one for one in members if isinstance(one, type) and one.__name__.endswith("Options")}
    return sorted((one for one in found if dataclasses.is_dataclass(one)), key=lambda one: (one.__module__, one.__name__))


def float_fields():
    hints = [(one, name, hint) for one in option_classes() for name, hint in typing.get_type_hints(one).items()]
    return [(one, name) for one, name, hint in hints if hint is float or float in typing.get_args(hint)]


def test_the_walk_finds_the_options():
    assert len(STRATEGIES.entries()) >= 20 and len(option_classes()) >= 20
    assert {name for _, name in float_fields()} >= {"lr", "gap", "radius", "hottest", "beta", "score_share", "score_limit"}


@pytest.mark.parametrize("options, name", float_fields(), ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan"])
def test_every_number_is_finite(options, name, value):
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(options).validate_python({name: value})
    assert any(item["loc"][0] == name for item in refused.value.errors())


@pytest.mark.parametrize(
    "strategy, key, value",
    [
        ("darts", "weight_decay", -1),
        ("idarts", "weight_decay", -1),
        ("idarts", "terms", -1),
        ("idarts", "inner_steps", 0),
        ("ms-darts", "samples", 0),
        ("ms-darts", "radius", -1.0),
        ("ms-darts", "radius", math.nan),
        ("ms-darts", "bandwidth", 0.0),
        ("ms-darts", "weight_decay", -1),
        ("darts-prime", "weight_decay", -1),
        ("unas", "gap", -0.1),
        ("unas", "gap", math.nan),
        ("unas", "temperature", 0.0),
        ("snas", "hottest", math.nan),
        ("snas", "coldest", 0.0),
        ("radars", "agent_lr", math.inf),
        ("monas", "score_limit", math.nan),
        ("random", "draws", 0),
        ("evolution", "population", -1),
    ],
)
def test_an_option_out_of_its_range_is_named_with_what_was_given(strategy, key, value):
    with pytest.raises(ConfigError, match=rf"strategy\.values\.{key}: .*got {value}"):
        STRATEGIES.get(strategy).options(StrategyConfig(name=strategy, values={key: value}))
