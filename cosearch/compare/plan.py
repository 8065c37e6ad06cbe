"""Which runs a comparison has: strategies, or labelled variants of them, x seeds x tasks, each with its whole configuration.

The controls, random search and ``largest``, are always among them, and random search's run is shown beside every other. Hand-made
networks, each as wide as the target allows, are controls that are asked for. A word of the command line is for all runs, or for
those of one label, wherever it stands; a word for all goes to the runs in which it has an effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cosearch.config.fixed import check_words
from cosearch.config.run import Config, resolve
from cosearch.config.search import SpaceConfig, StrategyConfig
from cosearch.planning.budget import run_steps
from cosearch.planning.builtins import load_builtins
from cosearch.planning.control import CONTROLS, LARGEST, RANDOM
from cosearch.planning.device.hardware import table_or_design
from cosearch.planning.options.unused import unused
from cosearch.planning.plan import make_plan
from cosearch.planning.request import resolve_request, with_absolute_paths
from cosearch.planning.space import make_space
from cosearch.planning.task import resolve_task
from cosearch.record.rundir import as_folder_name
from cosearch.registry import unknown_name
from cosearch.space.kinds.hand_made import HAND_MADE, hand_made_for
from cosearch.strategies.base import STRATEGIES, StrategyInfo
from latency_tables.errors import ConfigError, InfeasibleTargetError, UnknownNameError
from latency_tables.table import Table

SET_BY = {  # key -> what sets it
    "env.name": "--env",
    "seed": "--seeds",
    "strategy.name": "--strategies",
    "control": "the comparison, to the random-search run of each seed",
}


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison.

    Attributes:
        name: of its folder.
        env, strategy, seed: what tells it from the others; ``strategy`` is the label that a variant of one was given.
        config: its configuration.
        own: keys that were given to this strategy or variant alone.
    """

    name: str
    env: str
    strategy: str
    seed: int
    config: Config
    own: tuple[str, ...] = ()


def planned_runs(
    folder: Path,
    strategies: Sequence[str],
    seeds: Sequence[int],
    envs: Sequence[str],
    *,
    preset: str = "quick",
    file: Path | None = None,
    words: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
    hand_made: Sequence[str] = (),
    tell: Callable[[str], None] = lambda text: None,
) -> list[PlannedRun]:
    """All runs of a comparison, those of random search and ``largest`` first.

    Args:
        folder: of the comparison.
        strategies: names, or LABEL=NAME for a variant that has words of its own; random search and ``largest`` are added
            where they are missing.
        seeds, envs: of the runs: every strategy has each of them.
        preset, file: see ``cosearch.config.run.resolve``.
        words: KEY=VALUE for all runs, or STRATEGY:KEY=VALUE (LABEL:KEY=VALUE) for those of one. A word for all is given to the
            runs in which it has an effect.
        options: see ``cosearch.config.run.resolve``.
        hand_made: names of hand-made networks that are controls on each task, or ``all`` that are made for it and of which some
            width meets the target.
        tell: is told which of ``all`` are left out, and which keys of the file have no effect, and why, one line each.

    Returns:
        The runs; each uses one thread unless ``threads`` is set, and has the random-search run of its seed as its control.

    Raises:
        UnknownNameError: no such strategy or hand-made network, or a key that none of them uses.
        ConfigError: a fault of the configuration or of a label, a word for what an option sets, or runs of unequal numbers of
            environment steps.
    """
    load_builtins()
    networks = _hand_made(hand_made, envs, preset, file, options)
    names = _labels([*strategies, *(f"{name}={LARGEST}" for name in networks)])
    set_by = SET_BY | ({"device": "--device"} if (options or {}).get("device") is not None else {})
    check_words([word.partition(":")[2] if _owner(word, names) else word for word in words], set_by)
    in_file = set() if file is None else resolve(preset=preset, file=file).said
    for key in ("control", "seed", "strategy.name"):
        if key in in_file:
            tell(f"{file}: {key} has no effect in a comparison: it is set by {set_by[key]}")
    asked_words, words = words, [*words, *(f"{name}:space.name={name}" for name in networks)]
    chosen: dict[str, list[str]] = {}
    runs = []
    for name, strategy in names.items():
        for env in networks.get(name, dict.fromkeys(envs)):
            asked = {**(options or {}), "strategy.name": strategy, "env.name": env, "control": ""}
            given = _words_of(name, names, words)
            if name in networks:
                given = [word for word in given if word == f"space.name={name}" or not word.startswith("space.")]
            if name in networks and "all" in hand_made and (why := _too_slow(given, asked, preset, file)):
                tell(f"{name} is no control on {env}: {why}")
                continue
            resolved = resolve_task(preset=preset, file=file, overrides=given, options=asked)
            if resolved.family.wanted:
                raise ConfigError(
                    "a comparison has one device and one latency target, got a list: make one comparison for each, or all agents "
                    "of one strategy in one run: cosearch search --device A,B --latency-target-ms T,U"
                )
            request = resolve_request(resolved)
            given = _without(given, unused(request), words)
            chosen[name] = [*chosen.get(name, ()), *given]
            for seed in dict.fromkeys(seeds):
                control = "" if name == RANDOM else str(folder / _run_name(env, RANDOM, seed, envs))
                asked |= {"seed": seed, "control": control}
                config = with_absolute_paths(resolve_task(preset=preset, file=file, overrides=given, options=asked))
                config = replace(config, threads=config.threads or 1)
                own = tuple(word.partition(":")[2].partition("=")[0] for word in words if _owner(word, names) == name)
                runs.append(PlannedRun(_run_name(env, name, seed, envs), env, name, seed, config, own))
    _refuse_unused(asked_words, chosen)
    steps = {run.name: run_steps(run.config) for run in runs}
    if len(set(steps.values())) > 1:
        raise ConfigError(
            "the runs of a comparison must have equal environment steps, got "
            + ", ".join(f"{name}: {count:,}" for name, count in steps.items())
        )
    return with_one_target(runs)


def controls_first(runs: Iterable[PlannedRun]) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """The random-search runs, which all others are shown beside and which are made first; and the others."""
    both: tuple[list[PlannedRun], list[PlannedRun]] = [], []
    for run in runs:
        both[run.strategy != RANDOM].append(run)
    return both


def with_one_target(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The same; on an accelerator, where each seed searches the reference agent's design anew, all have the first's target."""
    targets: dict[str, float | None] = {}
    for run in runs:
        if run.env not in targets:
            config, targets[run.env] = run.config, None
            if config.objective.latency_target_s is None and not isinstance(table_or_design(config.device, config.table), Table):
                targets[run.env] = make_plan(config).constraints[0].value
    return [
        run
        if targets[run.env] is None
        else replace(run, config=replace(run.config, objective=replace(run.config.objective, latency_target_s=targets[run.env])))
        for run in runs
    ]


def _run_name(env: str, strategy: str, seed: int, envs: Sequence[str]) -> str:
    return as_folder_name(*([env] if len(set(envs)) > 1 else []), strategy, f"s{seed}")


def _labels(strategies: Sequence[str]) -> dict[str, str]:
    """Label -> strategy, the controls first."""
    found = {name: name for name in CONTROLS}
    for word in strategies:
        label, _, name = word.partition("=")
        if found.setdefault(label, name or label) != (name or label) or (name and label in STRATEGIES.names()):
            raise ConfigError(f"{word}: the label {label!r} is taken; expected a label of your own, such as mine={name}")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", label):
            raise ConfigError(f"{word}: expected a strategy, or LABEL=STRATEGY with letters, digits, - and _ in the label")
    return found


def _hand_made(
    asked: Sequence[str], envs: Sequence[str], preset: str, file: Path | None, options: Mapping[str, object] | None
) -> dict[str, list[str]]:
    """The hand-made networks that are asked for, each with the tasks that it is made for."""
    found: dict[str, list[str]] = {}
    for name in asked:
        if name not in (*HAND_MADE, "all"):
            raise unknown_name("hand-made network", name, [*HAND_MADE, "all"], "`cosearch list spaces` lists them")
    for env in dict.fromkeys(envs) if asked else ():
        config = resolve_task(preset=preset, file=file, options={**(options or {}), "env.name": env})
        fitting = hand_made_for(make_space(replace(config, space=SpaceConfig())).frame_shape)
        for name in fitting if "all" in asked else asked:
            if name not in fitting:
                raise ConfigError(f"{name} is not made for the frames of {env}; made for them: {', '.join(fitting) or 'none'}")
            found.setdefault(name, []).append(env)
    return found


def _too_slow(given: Sequence[str], asked: Mapping[str, object], preset: str, file: Path | None) -> str:
    """Why no architecture of a run meets its targets; empty: one does."""
    try:
        make_plan(resolve_task(preset=preset, file=file, overrides=given, options=asked))
    except InfeasibleTargetError as error:
        return str(error)
    return ""


def _owner(word: str, names: Mapping[str, str]) -> str | None:
    """The label that a word is for; None: for all."""
    owner = word.partition(":")[0]
    return owner if owner in names else None


def _words_of(name: str, names: Mapping[str, str], words: Sequence[str]) -> list[str]:
    """The words for one strategy, without those of others and those that it would ignore; its own last, so that they hold."""
    info, for_all, own = STRATEGIES.get(names[name]), [], []
    for word in words:
        if (owner := _owner(word, names)) is not None:
            own += [word.partition(":")[2]] if owner == name else []
            continue
        section, _, key = word.partition("=")[0].partition(".")
        if section != "strategy" or _uses(info, key):
            for_all.append(word)
    return [*for_all, *own]


def _without(given: Sequence[str], ignored: Collection[str], words: Sequence[str]) -> list[str]:
    """The words of a run without those for all runs (``words``) whose key is ignored; its own stay, to be refused."""
    return [word for word in given if word not in words or word.partition("=")[0] not in ignored]


def _uses(info: StrategyInfo, key: str) -> bool:
    if not key.startswith("values."):
        return key not in info.unused
    try:
        info.options(StrategyConfig(name=info.name, values={key.removeprefix("values."): None}))
    except UnknownNameError:
        return False
    except ConfigError:  # its own, and null is no value for it
        return True
    return True


def _refuse_unused(words: Sequence[str], chosen: Mapping[str, Sequence[str]]) -> None:
    for word in words:
        owner, _, rest = word.partition(":")
        if not any(word in kept or (owner == name and rest in kept) for name, kept in chosen.items()):
            raise ConfigError(f"{word} has no effect with any of {', '.join(chosen)}; leave it out")
