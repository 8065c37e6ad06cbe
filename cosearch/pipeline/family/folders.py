"""The folders of a family's agents, each a run folder that begins where the one search ended.

An agent's folder has the log of the search, its shared weights, the agent's architecture, and a checkpoint at the search's end,
with the random streams as the search left them. From there it is a run as any other: ``resume``, ``export``,
``deploy`` and ``report`` take it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cosearch.pipeline.agent.bracket import write_winner
from cosearch.pipeline.checkpoint import Checkpoint, StageOutputs
from cosearch.pipeline.search.derivation import Found, write_architecture
from cosearch.pipeline.session import Session
from cosearch.pipeline.target.repair import stage_after_search
from cosearch.planning.plan import Plan
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.json_record import to_json
from cosearch.record.metrics import OF_A_TARGET
from cosearch.record.results.architecture import SHARED_WEIGHTS, ArchitectureRecord
from cosearch.record.results.family import AGENTS
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError


def begin_agents(session: Session, found: Sequence[Found]) -> None:
    """Make the agents' folders at the end of the search; those that an interrupted end made are written again.

    Args:
        session: of the search.
        found: for each agent of the plan.
    """
    for (name, plan), one in zip(session.plan.agents.items(), found, strict=True):
        run = _folder(session, name, plan)
        with run.lock():
            session.log.progress.note(f"{name}: {write_architecture(plan, run, one.architecture, one.derived_by)}")
            _link(session.run.path / SHARED_WEIGHTS, run.path / SHARED_WEIGHTS)
            lines = [_of_agent(line, name, session.plan, plan) for line in session.run.read_metrics()]
            write_bytes_atomic(run.path / "metrics.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            begun = Checkpoint(
                stage_after_search(plan, run, one.output),
                session.resources.streams.state_dict(),
                outputs=StageOutputs(search=one.output),
                wall_s=session.clock.spent_s,
                ordinal=1,
            )
            run.save_checkpoint(begun.to_dict(), begun.ordinal)


def share_training(run: RunDir, plan: Plan, finished: Mapping[str, Plan]) -> str | None:
    """Give an agent the retraining of a finished one that began with the same networks, which would be the same to the last bit.

    Args:
        run: folder of an agent that has not begun its retraining; any other is left as it is.
        plan: of the agent.
        finished: plans of the family's finished agents by name.

    Returns:
        Name of the agent whose retraining it has now; None where it has one of its own to do.
    """
    own = _checkpoint(run)
    began = _networks(run, own)
    if own.stage != "retrain" or own.stage_state is not None or began is None:
        return None
    for name, other in finished.items():
        twin = RunDir.open(run.path.parent / name)
        done = _checkpoint(twin)
        if other.artifact.dtype == plan.artifact.dtype and _networks(twin, done) == began:
            with run.lock():
                _take_winner(run, plan, twin)
                run.truncate_metrics(own.step, "retrain")  # what an interrupted end left
                log = [json.dumps(line).encode() + b"\n" for line in twin.read_metrics() if line["stage"] == "retrain"]
                file = run.path / "metrics.jsonl"
                write_bytes_atomic(file, file.read_bytes() + b"".join(log))
                run.change_record(trained_as=name)  # before the checkpoint: a retraining of its own takes it back
                ready = replace(own, stage="finish", streams=done.streams, outputs=done.outputs, ordinal=own.ordinal + 1)
                run.save_checkpoint(ready.to_dict(), ready.ordinal)
            return name
    return None


def _checkpoint(run: RunDir) -> Checkpoint:
    saved = run.load_checkpoint()
    if saved is None:
        raise RunFolderError(f"{run.path} has no checkpoint, which the end of the search wrote; start a new run")
    return Checkpoint.from_dict(saved)


def _networks(run: RunDir, checkpoint: Checkpoint) -> list[tuple[int, ...]] | None:
    """The architectures that an agent's retraining begins with; None of one that was retrained in another's place."""
    search = checkpoint.outputs.search
    if search is None or search.brief or search.retrained_steps:
        return None
    bracket = run.read(ArchitectureRecord).derived_by.bracket  # afterwards the checkpoint names the one that it left
    if bracket:
        return [one.choices for one in bracket]
    return [search.choices, *(other.choices for other in search.others)]


def _take_winner(run: RunDir, plan: Plan, twin: RunDir) -> None:
    """What the bracket of an agent that began alike left is this agent's architecture, too; nothing without a bracket."""
    found = twin.read(ArchitectureRecord)
    if found.derived_by.bracket:
        cost = plan.constraints[0].cost
        bracket = tuple(
            replace(one, latency_s=cost.exact(plan.space.architecture(one.choices))) for one in found.derived_by.bracket
        )
        write_winner(plan, run, found.choices, run.read(ArchitectureRecord).derived_by, bracket)


def _folder(session: Session, name: str, plan: Plan) -> RunDir:
    agents = session.run.path / AGENTS
    if (agents / name / RunRecord.FILE).is_file():
        return RunDir.open(agents / name)
    family = session.run.read(RunRecord)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    record = replace(plan.record(family.command), name=f"{family.name or session.run.path.name}-{name}", created_utc=created)
    return RunDir.create(agents, name, to_json(record))


def _link(source: Path, target: Path) -> None:
    """The same file in a second folder, without a copy where the file system can."""
    if not source.is_file():
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # no links there, or another file system
        shutil.copyfile(source, target)


def _of_agent(line: dict[str, object], name: str, searched: Plan, plan: Plan) -> dict[str, object]:
    """A line of the search's log for one agent: what went by another agent's target is left out."""
    first = plan.hardware.table_id == searched.hardware.table_id  # the device that the latency of a candidate is on
    own = line["agent"] == name if "agent" in line else first
    return {key: value for key, value in line.items() if key != "agent" and (own or key not in OF_A_TARGET)}
