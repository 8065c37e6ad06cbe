"""The configuration of a task: the values that suit its family of environments, below the preset and everything a user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cosearch.config.run import Config, resolve
from cosearch.planning.builtins import load_builtins
from cosearch.rl.envs import split_name


def resolve_task(
    *, preset: str = "quick", file: Path | None = None, overrides: Sequence[str] = (), options: Mapping[str, object] | None = None
) -> Config:
    """Defaults, then the values of the family and of the game, then preset, file, words and options.

    The last four as :func:`cosearch.config.run.resolve` has them.

    Args:
        preset, file, overrides, options: as for :func:`cosearch.config.run.resolve`.

    Raises:
        ConfigError: any fault of any layer.
        UnknownNameError: no such environment.
    """
    load_builtins()
    plain = resolve(preset=preset, file=file, overrides=overrides, options=options)
    family, game = split_name(plain.env.name)
    base = {**family.run, **family.suited.get(game, {})}
    return resolve(base=base, preset=preset, file=file, overrides=overrides, options=options)
