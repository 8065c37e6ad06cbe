"""The only configuration: frozen, typed sections; defaults -> preset -> file -> ``key=value``; all faults at once.

Every field has its unit or range in its description. A resolved configuration is written to ``run.json`` and reloads to an
equal object. An unknown key is a fault that suggests the nearest one.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails

from cosearch.config.accel import AccelConfig
from cosearch.config.agent import DistillConfig, DqnConfig, RlConfig, SacConfig
from cosearch.config.env import EnvConfig
from cosearch.config.family import FamilyConfig
from cosearch.config.presets import PRESETS
from cosearch.config.ranges import KNOWN_KEYS_ONLY, SEEDS, Count, Fraction, NonNegative, Positive, PositiveFloat, Seed, Threads
from cosearch.config.search import SpaceConfig, StrategyConfig
from latency_tables.errors import ConfigError
from latency_tables.text.reading import parse_word, read_toml, shown

Statistic = Literal["median", "p99"]
At = Literal["back-to-back", "period"]


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class ObjectiveConfig:
    """What the agent must keep on its device, all together.

    Attributes:
        latency_target_s: upper bound, seconds; null: ``latency_ratio`` of the reference agent on the same device.
        target_statistic: of the latency that the bound is on: ``median`` or ``p99``, the 99th percentile.
        target_at: calls ``back-to-back``, as a table predicts them, or one a control ``period`` of 20 ms, after a sleep.
        latency_ratio: share of the predicted latency of the reference agent, above 0; null: 0.2 of the IMPALA-CNN for images,
            all of the 64-64 MLP for vectors (which is bound by the number of its kernels on most boards).
        energy_target_j: upper bound, joules an inference; null: none.
        file_target_bytes: upper bound on the size of the file that is deployed; null: none.
        memory_target_bytes: upper bound on the peak memory of a process that runs it, with runtime and interpreter; null: none.
        margin: fraction of each bound that is kept free, 0..1.
        dual_lr, quadratic: step of the dual variable and weight of the quadratic term, of the targets that are penalties.
    """

    latency_target_s: PositiveFloat | None = None
    latency_ratio: PositiveFloat | None = None
    target_statistic: Statistic = "median"
    target_at: At = "back-to-back"
    energy_target_j: PositiveFloat | None = None
    file_target_bytes: Positive | None = None
    memory_target_bytes: Positive | None = None
    margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    dual_lr: NonNegative = 0.05
    quadratic: NonNegative = 1.0


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class BudgetConfig:
    """How long each stage runs.

    Attributes:
        search_steps, retrain_steps: environment steps of the two stages; 0 retrain steps keep the searched weights.
        bracket: architectures that begin the retraining, a quarter of its steps, until the best of them is left (successive
            halving), the largest networks within the targets among them; 1: the best by score alone.
        retrain_init: ``inherit`` the searched weights, or start from ``scratch``, which needs retrain steps. With ``ppo`` and
            ``a2c`` and no teacher that says its divisor of the rewards, the running divisor begins anew in the retraining: an
            inherited critic learned in the units of the search, so its loss is larger until it has followed.
        repair_rounds: architectures that are timed on the device, where it is this machine or in `cosearch deploy --until-under`,
            until one measures within its targets; 0: the derived one is kept whatever it measures.
        repair_share: environment steps of the retraining of each architecture after the first, as a share of ``retrain_steps``.
        eval_episodes: episodes of the final evaluation on test levels.
        parity_frames: observations of the export gate.
        checkpoint_interval_s: seconds of training between checkpoints; each stage's end is always one.
        measure_s: seconds for measuring the exported agent.
        clip_frames: frames of the clip of the agent playing that the report shows; 0: no clip.
    """

    search_steps: Positive = 160_000
    retrain_steps: Count = 320_000
    bracket: Annotated[int, Field(ge=1, le=64)] = 1
    retrain_init: Literal["inherit", "scratch"] = "inherit"
    repair_rounds: Annotated[int, Field(ge=0, le=100)] = 8
    repair_share: Fraction = 0.1
    eval_episodes: Positive = 256
    parity_frames: Positive = 1000
    checkpoint_interval_s: NonNegative = 30.0
    measure_s: PositiveFloat = 5.0
    clip_frames: Annotated[int, Field(ge=0, le=2000)] = 120


@dataclass(frozen=True, config=KNOWN_KEYS_ONLY)
class Config:
    """A whole run.

    Attributes:
        device: name of the target device or accelerator; `cosearch list devices`; ``this`` measures this machine first.
        table: path of a table, or of an accelerator design, to use instead of the device's own; empty: none.
        seed: the one seed of the run.
        threads: CPU threads of the networks; 0: all cores.
        compute: where to train: ``cpu``, ``cuda`` or ``auto``.
        control: path of a finished run of ``random`` or ``largest`` to show beside the result; empty: none.
        said: keys that the request named itself, in its file, words or options; no value of the run: not compared, not written.
    """

    device: str = "jetson"
    table: str = ""
    seed: Seed = 0
    threads: Threads = 0
    compute: Literal["auto", "cpu", "cuda"] = "auto"
    control: str = ""
    env: EnvConfig = EnvConfig()
    space: SpaceConfig = SpaceConfig()
    strategy: StrategyConfig = StrategyConfig()
    rl: RlConfig = RlConfig()
    dqn: DqnConfig = DqnConfig()
    sac: SacConfig = SacConfig()
    distill: DistillConfig = DistillConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    family: FamilyConfig = FamilyConfig()
    budget: BudgetConfig = BudgetConfig()
    accel: AccelConfig = AccelConfig()
    said: Annotated[frozenset[str], Field(exclude=True)] = dataclasses.field(default=frozenset(), compare=False, repr=False)


_ADAPTER = TypeAdapter(Config)
MAX_FAULTS, MAX_LINE = 20, 300  # shown in one message


def config_to_dict(config: Config) -> dict[str, object]:
    """Plain JSON values; :func:`config_from_dict` reads them back to an equal object."""
    return json.loads(_ADAPTER.dump_json(config))


def config_from_dict(values: Mapping[str, object], source: str = "configuration") -> Config:
    """Check nested values and make the configuration.

    Args:
        values: nested mapping; missing keys take their defaults.
        source: where the values came from, for the message.

    Raises:
        ConfigError: lists every fault, with the nearest key for an unknown one.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: expected a configuration, got {shown(values)}")
    try:
        config = _ADAPTER.validate_python({key: value for key, value in values.items() if key != "said"})
        lines = []
    except ValidationError as error:
        lines = [_fault(item)[:MAX_LINE] for item in error.errors()]
    if "said" in values:
        lines.append("said: unknown key")
    lines += [line for line in _truth_for_number(values) if line.split(":")[0] not in {each.split(":")[0] for each in lines}]
    if lines:
        raise ConfigError(
            f"{source}: {len(lines)} fault{'s' * (len(lines) > 1)}\n"
            + "\n".join(f"  {line}" for line in lines[:MAX_FAULTS] + ["..."] * (len(lines) > MAX_FAULTS))
            + "\n`cosearch search --dry-run` prints all keys with their values"
        )
    return config


def with_seed(config: Config, seed: int) -> Config:
    """The configuration with another seed.

    Args:
        config: of a run.
        seed: 0 to 2**64 - 1.

    Raises:
        ConfigError: the seed is out of its range.
    """
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"seed must be 0 to {SEEDS - 1}, got {seed}: begin with a smaller --seed")
    return dataclasses.replace(config, seed=seed)


def _truth_for_number(values: Mapping[str, object], prefix: str = "") -> list[str]:
    """True and false where a number is expected: they would be read as 1 and 0."""
    faults, known = [], config_defaults()
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in known:  # a section; free values have no names of their own
            faults += _truth_for_number(value, f"{name}.")
        elif isinstance(value, bool) and (known.get(name, "") is None or type(known.get(name)) in (int, float)):
            faults.append(f"{name}: Input should be a number, got {value}")
    return faults


def _fault(item: ErrorDetails) -> str:
    path = ".".join(str(part) for part in item["loc"])[:80]
    if item["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(path, config_defaults(), n=1, cutoff=0.4)
        return f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{path}: {item['msg']}, got {shown(item['input'])}"


def config_defaults() -> dict[str, object]:
    """Default of every key that can be set, by its dotted name, in the order of the sections."""
    found: dict[str, object] = {}
    config = Config()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{own.name}": getattr(value, own.name) for own in dataclasses.fields(value)}
        elif field.name != "said":
            found[field.name] = value
    return found


def resolve(
    *,
    preset: str = "quick",
    file: Path | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
    base: Mapping[str, object] | None = None,
) -> Config:
    """Defaults, then base, preset, file, ``key=value`` words, and command-line options.

    Args:
        preset: name of a preset.
        file: TOML file with the same sections.
        overrides: words such as ``rl.lr=3e-4``; the value is read as JSON where it is JSON, ``[a, b]`` as a list of names, else
            as text.
        options: dotted key -> value; None values are passed over.
        base: dotted key -> value, what suits the task better than the defaults.

    Returns:
        The configuration; file, words and options are what it has in ``said``.

    Raises:
        ConfigError: any fault of any layer.
    """
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        raise ConfigError(
            f"unknown preset {preset!r}: expected one of {', '.join(PRESETS)}." + (f" Did you mean {near[0]!r}?" if near else "")
        )
    values: dict[str, object] = {}
    if file is not None:
        _merge(values, read_toml(Path(file), "a TOML configuration", ConfigError))
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"expected KEY=VALUE such as rl.lr=3e-4, got {shown(word)}")
        _put(values, key, parse_word(text, shown(key), ConfigError))
    for key, value in (options or {}).items():
        if value is not None:
            _put(values, key, value)
    below: dict[str, object] = {}
    for key, value in (base or {}).items():
        _put(below, key, value)
    _merge(below, _below(PRESETS[preset].values, values))
    said = frozenset(key for key in config_defaults() if _holds(values, key))
    return dataclasses.replace(config_from_dict(below, "configuration"), said=said)


def _holds(values: Mapping[str, object], key: str) -> bool:
    """Whether nested values have a dotted key."""
    first, _, rest = key.partition(".")
    inner = values.get(first)
    return first in values and (not rest or (isinstance(inner, Mapping) and _holds(inner, rest)))


def _below(preset: Mapping[str, Mapping[str, object]], asked: Mapping[str, object]) -> dict[str, object]:
    """The preset's values under what was asked for; those of the strategy that it names are left out beside another one."""
    named, section = preset.get("strategy", {}).get("name"), asked.get("strategy", {})
    other = named is not None and isinstance(section, Mapping) and section.get("name", named) != named
    values: dict[str, object] = {}
    _merge(values, {key: value for key, value in preset.items() if not (other and key == "strategy")})
    _merge(values, asked)
    return values


def _merge(into: dict[str, object], more: Mapping[str, object]) -> None:
    for key, value in more.items():
        inner = into.get(key)
        if isinstance(value, Mapping) and isinstance(inner, dict):
            _merge(inner, value)
        else:
            into[key] = copy.deepcopy(dict(value)) if isinstance(value, Mapping) else value


def _put(values: dict[str, object], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {section!r} is a value, not a section")
        values = inner
    values[last] = value
