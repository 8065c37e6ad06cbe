"""The only configuration: frozen, typed sections; defaults -> preset -> file -> ``key=value``; all faults at once.

Every field has its unit or range in its description. A resolved configuration is written to ``run.json`` and reloads to an
equal object. An unknown key is a fault that suggests the nearest one.
"""
from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cosearch.config_accel import STRICT, AccelConfig, Fraction, NonNegative, Positive, PositiveFloat
from cosearch.presets import PRESETS
from latency_tables.errors import ConfigError


@dataclass(frozen=True, config=STRICT)
class EnvConfig:
    """The task.

    Attributes:
        name: ``FAMILY:GAME``; `cosearch list envs`.
        num_envs: environments stepped together.
        train_levels: Procgen training levels ``0 .. n - 1``; the test levels are all later ones.
    """

    name: str = "procgen:starpilot"
    num_envs: Positive = 64
    train_levels: Annotated[int, Field(ge=1, le=2_000_000_000)] = 100_000


@dataclass(frozen=True, config=STRICT)
class SpaceConfig:
    """The search space.

    Attributes:
        name: registry name of the kind of space.
        values: fields of that space's own configuration that differ from its defaults, e.g. ``space.values.hidden=64``.
    """

    name: str = "chain"
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class StrategyConfig:
    """The search method.

    Attributes:
        name: registry name; `cosearch list strategies`.
        paths_per_rollout: paths that share the environments of one rollout (gradient strategies).
        update_path: ``fresh``: each minibatch is learned along a newly drawn path; ``acting``: along the one that acted.
        active_paths: K of the backward pass; 0 for all (``a3cs``).
        temperature_start, temperature_end: of the architecture samples (``a3cs``, ``a2d``).
        lr: Adam learning rate of the architecture logits.
        target_form: ``multiplier``: the target bounds the sampled distribution exactly; ``penalty``: a loss with a dual variable.
        warmup_fraction: first share of the search in which only weights are trained.
        warmup_factor: the sampled distribution may cost this many times the target during that share (``multiplier``).
        candidates: architectures that share the budget (proposal strategies).
    """

    name: str = "reinforce"
    paths_per_rollout: Positive = 4
    update_path: Literal["fresh", "acting"] = "fresh"
    active_paths: Annotated[int, Field(ge=0)] = 1
    temperature_start: PositiveFloat = 3.0
    temperature_end: PositiveFloat = 0.3
    lr: PositiveFloat = 0.02
    target_form: Literal["multiplier", "penalty"] = "multiplier"
    warmup_fraction: Fraction = 0.3
    warmup_factor: Annotated[float, Field(ge=1.0)] = 1.0
    candidates: Positive = 4


@dataclass(frozen=True, config=STRICT)
class RlConfig:
    """The reinforcement-learning update.

    Attributes:
        algorithm: ``ppo`` or ``a2c``.
        rollout_steps: steps of each environment in one rollout.
        epochs, minibatch, micro_batch: see ``LearnerOptions``.
        lr: Adam learning rate of the weights at the start of a stage; it falls linearly to ``lr_end_fraction`` of that.
        lr_end_fraction: 0..1.
        gamma, lam: discount and GAE trace decay.
        clip, value_clip, value_weight, entropy_weight, max_grad_norm: see ``LearnerOptions``.
        bf16: bfloat16 autocast of the networks.
    """

    algorithm: Literal["ppo", "a2c"] = "ppo"
    rollout_steps: Positive = 64
    epochs: Positive = 3
    minibatch: Positive = 128
    micro_batch: Positive = 128
    lr: PositiveFloat = 2e-3
    lr_end_fraction: Fraction = 0.02
    gamma: Fraction = 0.999
    lam: Fraction = 0.95
    clip: PositiveFloat = 0.2
    value_clip: bool = True
    value_weight: NonNegative = 0.1
    entropy_weight: NonNegative = 0.01
    max_grad_norm: PositiveFloat = 10.0
    bf16: bool = True


@dataclass(frozen=True, config=STRICT)
class DistillConfig:
    """Distillation from the teacher (A2D).

    Attributes:
        teacher: name of a shipped teacher, path of a teacher file, ``auto`` (the shipped one of the game) or ``none``.
        actor, critic: weights of the actor's KL divergence and of the critic's squared error.
        end_fraction: share of the weights that is left at the end of the retraining; linear in between.
    """

    teacher: str = "auto"
    actor: NonNegative = 30.0
    critic: NonNegative = 0.5
    end_fraction: Fraction = 1.0


@dataclass(frozen=True, config=STRICT)
class ObjectiveConfig:
    """What the device must hold.

    Attributes:
        latency_target_s: upper bound, seconds; null: ``latency_ratio`` of the IMPALA-CNN on the same device.
        latency_ratio: share of the IMPALA-CNN's predicted latency, above 0.
        energy_target_j: upper bound, joules an inference; null: none.
        margin: fraction of each bound that is kept free, 0..1.
        dual_lr, quadratic: step of the dual variable and weight of the quadratic term.
    """

    latency_target_s: PositiveFloat | None = None
    latency_ratio: PositiveFloat = 0.2
    energy_target_j: PositiveFloat | None = None
    margin: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    dual_lr: NonNegative = 0.05
    quadratic: NonNegative = 1.0


@dataclass(frozen=True, config=STRICT)
class BudgetConfig:
    """How long each stage runs.

    Attributes:
        search_steps, retrain_steps: environment steps of the two stages; 0 retrain steps keep the searched weights.
        retrain_init: ``inherit`` the searched weights, or start from ``scratch``.
        eval_episodes: episodes of the final evaluation on test levels.
        parity_frames: observations of the export gate.
        checkpoint_interval_s: seconds of training between checkpoints; each stage's end is always one.
        measure_s: seconds for measuring the exported agent.
    """

    search_steps: Annotated[int, Field(ge=1)] = 160_000
    retrain_steps: Annotated[int, Field(ge=0)] = 320_000
    retrain_init: Literal["inherit", "scratch"] = "inherit"
    eval_episodes: Positive = 256
    parity_frames: Positive = 1000
    checkpoint_interval_s: NonNegative = 30.0
    measure_s: PositiveFloat = 5.0


@dataclass(frozen=True, config=STRICT)
class Config:
    """A whole run.

    Attributes:
        device: name of the target device or accelerator; `cosearch list devices`; ``this`` measures this machine first.
        table: path of a table, or of an accelerator design, to use instead of the device's own; empty: none.
        seed: the one seed of the run.
        threads: CPU threads of the networks; 0: all cores.
        compute: where to train: ``cpu``, ``cuda`` or ``auto``.
        control: path of a finished random-search run to show beside the result; empty: none.
    """

    device: str = "jetson"
    table: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    compute: Literal["auto", "cpu", "cuda"] = "auto"
    control: str = ""
    env: EnvConfig = EnvConfig()
    space: SpaceConfig = SpaceConfig()
    strategy: StrategyConfig = StrategyConfig()
    rl: RlConfig = RlConfig()
    distill: DistillConfig = DistillConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    budget: BudgetConfig = BudgetConfig()
    accel: AccelConfig = AccelConfig()


_ADAPTER = TypeAdapter(Config)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain JSON values; :func:`config_from_dict` reads them back to an equal object."""
    return json.loads(_ADAPTER.dump_json(config))


def config_from_dict(values: Mapping[str, Any], source: str = "configuration") -> Config:
    """Check nested values and make the configuration.

    Args:
        values: nested mapping; missing keys take their defaults.
        source: where the values came from, for the message.

    Raises:
        ConfigError: lists every fault, with the nearest key for an unknown one.
    """
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        lines = [_fault(item) for item in error.errors()]
        raise ConfigError(f"{source}: {len(lines)} fault{'s' * (len(lines) > 1)}\n" + "\n".join(f"  {line}" for line in lines)
                          + "\n`cosearch search --dry-run` prints all keys with their values") from error


def _fault(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(path, _known_keys(), n=1, cutoff=0.4)
        return f"{path}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{path}: {item['msg']}, got {item['input']!r}"


def _known_keys(section: type = Config, prefix: str = "") -> list[str]:
    keys = []
    for field in dataclasses.fields(section):
        default = getattr(section(), field.name)
        key = prefix + field.name
        keys += _known_keys(type(default), f"{key}.") if dataclasses.is_dataclass(default) else [key]
    return keys


def resolve(*, preset: str = "quick", file: Path | None = None, overrides: Sequence[str] = (),
            options: Mapping[str, Any] | None = None) -> Config:
    """Defaults, then preset, then file, then ``key=value`` words, then command-line options.

    Args:
        preset: name of a preset.
        file: TOML file with the same sections.
        overrides: words such as ``rl.lr=3e-4``; the value is read as JSON where it is JSON, else as text.
        options: dotted key -> value; None values are passed over.

    Raises:
        ConfigError: any fault of any layer.
    """
    if preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        raise ConfigError(f"unknown preset {preset!r}: expected one of {', '.join(PRESETS)}."
                          + (f" Did you mean {near[0]!r}?" if near else ""))
    values: dict[str, Any] = {}
    _merge(values, PRESETS[preset].values)
    if file is not None:
        try:
            _merge(values, tomllib.loads(Path(file).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read as a TOML configuration: {error}") from error
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"expected KEY=VALUE such as rl.lr=3e-4, got {word!r}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        _put(values, key, value)
    for key, value in (options or {}).items():
        if value is not None:
            _put(values, key, value)
    return config_from_dict(values, "configuration")


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(dict(value)) if isinstance(value, Mapping) else value


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{key}: {section!r} is a value, not a section")
    values[last] = value
