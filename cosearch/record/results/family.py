"""``family.json``: the agents that one search gave, each beside the others on every device; their own folders have the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cosearch.record.results.summary import Interval
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError

AGENTS = "agents"  # the folder of the agents' own folders, which are run folders themselves


@dataclass(frozen=True, kw_only=True)
class AgentResult:
    """What became of an agent, once it is finished.

    Attributes:
        score_mean: mean return of the exported agent on held-out levels.
        score_ci95: its 95 % interval over the episodes; None with fewer than two.
        episodes: how many.
        target_met, target_checked_by: as in the agent's own summary.
        bytes: size of the file that is deployed.
    """

    score_mean: float
    score_ci95: Interval | None
    episodes: int
    target_met: bool | None
    target_checked_by: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FamilyAgent:
    """One agent of a family.

    Attributes:
        name: also of its folder, ``agents/NAME``.
        device: short name of the device that it was derived for, one of the family's.
        latency_target_s: the bound there, seconds.
        choices: of its architecture.
        architecture: their names.
        params, macs: parameters, and multiply-accumulates of one decision.
        latency_predicted_s: of one decision on each device of the family, seconds.
        latency_measured_s: median where it was measured, seconds: on devices of the family by their names, on others by theirs.
        result: None while it is not finished.
    """

    name: str
    device: str
    latency_target_s: float
    choices: tuple[int, ...]
    architecture: tuple[str, ...]
    params: int
    macs: int
    latency_predicted_s: Mapping[str, float]
    latency_measured_s: Mapping[str, float] = field(default_factory=dict)
    result: AgentResult | None = None


@dataclass(frozen=True, kw_only=True)
class FamilyDevice:
    """A device of a family.

    Attributes:
        name: short.
        table: with runtime, dtype and threads, as its table is named.
        provenance: of the table that predicts latencies there.
        latency_targets_s: of the agents that were derived for it, seconds, in their order.
    """

    name: str
    table: str
    provenance: str
    latency_targets_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Family:
    """All agents of a run.

    Attributes:
        strategy, seed: of the search.
        search_steps: environment steps of the one search.
        env_steps: of the search and of the retraining of all agents that are finished.
        wall_s: seconds of compute of the same.
        devices: that latencies are predicted on.
        agents: in the order of the request.
    """

    FILE: ClassVar[str] = "family.json"

    strategy: str
    seed: int
    search_steps: int
    env_steps: int
    wall_s: float
    devices: tuple[FamilyDevice, ...]
    agents: tuple[FamilyAgent, ...]


def agent_names(run: RunDir) -> tuple[str, ...]:
    """Names of the agents of a family, in the order of the request; none for a run of a single agent."""
    members = run.record.get("agents")
    return tuple(str(member["name"]) for member in members if isinstance(member, dict)) if isinstance(members, list) else ()


def agent_folder(path: Path, name: str) -> Path:
    """The folder of one agent of a family, which is a run folder itself.

    Args:
        path: folder of the family.
        name: of the agent.

    Raises:
        RunFolderError: the run is no family, has no such agent, or its search has not ended.
    """
    run = RunDir.open(path)
    names = agent_names(run)
    if name not in names:
        there = f"its agents are {', '.join(names)}" if names else "it is of a single agent: leave --agent out"
        raise RunFolderError(f"{path} has no agent {name!r}; {there}")
    folder = run.path / AGENTS / name
    if not (folder / RunRecord.FILE).is_file():
        raise RunFolderError(f"{path}: its search has not ended, so there is no agent yet; `cosearch resume {path}` goes on")
    return folder


def family_of(path: Path) -> Path | None:
    """The folder of the family that an agent's folder belongs to; None for any other folder.

    Args:
        path: a run folder.
    """
    folder = Path(path).resolve()
    root = folder.parent.parent
    return root if folder.parent.name == AGENTS and (root / Family.FILE).is_file() else None


def check_single(run: RunDir) -> None:
    """Raise where a run folder is of several agents, for what is done with one.

    Raises:
        RunFolderError: it is; names its agents' folders.
    """
    names = agent_names(run)
    if names:
        raise RunFolderError(
            f"{run.path} holds {len(names)} agents ({', '.join(names)}): choose one, its folder is {run.path / AGENTS / names[0]}"
        )
