"""The store of a task-aware start: the earlier runs of ``strategy.store`` whose shared weights a search can begin with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cosearch.config.run import Config
from cosearch.planning.recorded import config_of
from cosearch.record.checkpoints import loaded
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import SHARED_WEIGHTS, ArchitectureRecord
from cosearch.record.run_record import RunRecord, SpaceRecord
from cosearch.record.rundir import RunDir
from cosearch.space.space import SearchSpace
from cosearch.space.supernet import SuperNet
from latency_tables.errors import ConfigError, RunFolderError


@dataclass(frozen=True)
class Source:
    """A finished search of the store.

    Attributes:
        path: its run folder.
        config: of the run.
        choices: of the architecture that it derived.
        same_actions: its actions are those of the search.
    """

    path: Path
    config: Config
    choices: tuple[int, ...]
    same_actions: bool = True

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its shared weights."""
        return hashlib.sha256((self.path / SHARED_WEIGHTS).read_bytes()).hexdigest()


def check_store(store: Path, space: SearchSpace, record: SpaceRecord) -> None:
    """Raise unless a search could begin from a store, each of whose fitting runs it would load.

    Args:
        store: folder of run folders.
        space, record: of the search.

    Raises:
        ConfigError: there is no such run.
        RunFolderError: shared weights cannot be read.
    """
    for source in sources(store, record):
        load_weights(SuperNet(space, torch.Generator().manual_seed(0)), source)


def sources(store: Path, space: SpaceRecord, own: Path | None = None) -> list[Source]:
    """The runs of a store whose shared weights a search can begin with, by name.

    Args:
        store: folder of run folders.
        space: of the search: same space and observations, and the same or another number of discrete actions.
        own: folder of the search itself, which is passed over; None: it has none yet.

    Raises:
        ConfigError: there is none.
    """
    found, reasons = [], []
    for folder in sorted(path.parent for path in store.glob("*/run.json")):
        if own is not None and folder.resolve() == own.resolve():
            continue
        if not (folder / SHARED_WEIGHTS).is_file() or not (folder / ArchitectureRecord.FILE).is_file():
            reasons.append(f"{folder.name} left no shared weights, or has not finished its search")
            continue
        run = RunDir.open(folder)
        config = config_of(run)
        theirs = run.read(RunRecord).space
        if not _fits(theirs, space) or not config.rl.on_policy:
            reasons.append(f"{folder.name} has another space, other observations or kind of actions, or learned from a replay")
            continue
        found.append(Source(folder, config, run.read(ArchitectureRecord).choices, theirs.num_actions == space.num_actions))
    if not found:
        said = "; ".join(reasons[:5]) or ("it holds no run folder" if store.is_dir() else "there is no such folder")
        raise ConfigError(f"strategy.store={store}: no run that this search can begin from: {said}. Leave strategy.store out")
    return found


def _fits(theirs: SpaceRecord, ours: SpaceRecord) -> bool:
    """Whether two spaces are the same, but for the number of single discrete actions."""
    free = ours.policy == "categorical" and not ours.parts
    return to_json(replace(theirs, num_actions=ours.num_actions) if free else theirs) == to_json(ours)


def load_weights(supernet: SuperNet, source: Source, other: SuperNet | None = None) -> None:
    """Load a source's shared weights; of one with other actions those that fit.

    Args:
        supernet: gets them.
        source: whose they are.
        other: of another number of actions: what does not fit it either is left out.

    Raises:
        RunFolderError: they cannot be read, or are not those of the space.
    """
    path = source.path / SHARED_WEIGHTS
    try:
        saved = loaded(path.read_bytes())
        if not source.same_actions:
            own, fitting = supernet.state_dict(), (other or supernet).state_dict()
            if set(saved) != set(own):
                raise ValueError("its weights have other names than those of this space")
            kept = {name: value for name, value in saved.items() if isinstance(value, Tensor)}
            saved = {**own, **{name: value for name, value in kept.items() if value.shape == fitting[name].shape}}
        supernet.load_state_dict(saved)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as shared weights: {' '.join(str(error).split())[:200]}") from error
