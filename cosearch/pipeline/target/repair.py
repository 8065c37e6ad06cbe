"""Under the target, for certain: architectures are measured on the device until one holds, first of all before the retraining.

What an architecture takes does not depend on its weights. So the one that was derived is exported with random weights, in the
form that the table priced, and measured where it will run: seconds, before the hours of its retraining. Over its target, or far
under it, the next one follows (``tries``). After the retraining the file that is deployed is measured; where that is over, the
next architecture is retrained briefly from the shared weights. Each round is in ``rounds.json`` before the next one begins, and
an interrupted run goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from cosearch.cost.size_cost import FILE
from cosearch.deploy.export import to_onnx
from cosearch.deploy.figures import Running
from cosearch.deploy.measure import Model
from cosearch.deploy.readings import Meter, Reading, Readings
from cosearch.pipeline.agent.artifact import in_form
from cosearch.pipeline.checkpoint import SearchOutput
from cosearch.pipeline.search.derivation import write_architecture
from cosearch.pipeline.shared_weights import shared_supernet, weights_of
from cosearch.pipeline.target.tries import HOLDS, KEPT_OVER, NONE_LEFT, NOTHING_CAN, USED_UP, ReadingOf, Tries, saved_scores
from cosearch.planning.plan import Plan
from cosearch.record.results.agent import AgentRecord
from cosearch.record.results.architecture import SHARED_WEIGHTS, ArchitectureRecord
from cosearch.record.results.deployment import Deployment
from cosearch.record.results.evaluation import EpisodesRecord
from cosearch.record.results.summary import Summary
from cosearch.record.results.target_rounds import AFTER, BEFORE, TargetRound, TargetRounds
from cosearch.record.run_record import TargetRecord
from cosearch.record.rundir import RunDir
from cosearch.report.data import CLIP
from cosearch.report.rounds import figure_text
from cosearch.space.derivation.derive import derive
from cosearch.space.space import Architecture
from latency_tables.board.temporary import temporary_folder
from latency_tables.errors import RunFolderError
from latency_tables.table import Table
from latency_tables.text.writing import remove

MEASURED = "; then measured on the device"


def meter_of(plan: Plan) -> Meter | None:
    """What measures a run's agents while it runs: this machine, where it is the device; None elsewhere.

    Args:
        plan: the resolved run.
    """
    if not isinstance(plan.hardware, Table) or plan.hardware.device.name != "this" or plan.artifact.compiler is not None:
        return None
    return Meter(running_of(plan), seconds=plan.config.budget.measure_s / 2)


def running_of(plan: Plan) -> Running:
    """What runs the agent: runtime, dtype, threads and batch of the table."""
    form = plan.artifact
    return Running(form.runtime, form.dtype, form.threads, form.batch)


def model_of(plan: Plan, architecture: Architecture, folder: Path) -> Model:
    """An architecture with random weights, in the form that is deployed.

    Args:
        plan: the resolved run.
        architecture: of its space.
        folder: for a library, whose name is made from the architecture.
    """
    network = derive(architecture, torch.Generator().manual_seed(0)).eval()
    name = "-".join(map(str, architecture.choices))
    return in_form(plan.artifact, to_onnx(network, plan.space.frame_shape), folder / name)


def stage_after_search(plan: Plan, run: RunDir, searched: SearchOutput) -> str:
    """``fit`` where architectures can be measured before the retraining, else ``retrain``.

    Args:
        plan: of one agent.
        run: its folder, with ``architecture.json``.
        searched: what the search gave.
    """
    return "fit" if Repair(plan, run, searched, lambda text: None, meter_of(plan)).measures else "retrain"


def write_taken(plan: Plan, run: RunDir, searched: SearchOutput, note: Callable[[str], None]) -> None:
    """Write ``architecture.json`` for an architecture that took the place of another, once a checkpoint names it.

    The results of the one before go first: the run is unfinished from then on, and no file is of another network.

    Args:
        plan: the resolved run.
        run: its folder; nothing is written where the file holds the architecture, or another one of its bracket.
        searched: of the newest checkpoint.
        note: told of it.
    """
    record = run.read(ArchitectureRecord)
    if record.choices not in (searched.choices, *(other.choices for other in searched.others)):
        for result in (Summary.FILE, AgentRecord.FILE, EpisodesRecord.FILE, CLIP):
            remove(run.path / result)
        derived_by = replace(record.derived_by, method=record.derived_by.method.removesuffix(MEASURED) + MEASURED)
        note(write_architecture(plan, run, plan.space.architecture(searched.choices), derived_by))


class Repair:
    """The rounds of a run on the device that a meter reaches.

    Args:
        plan: the resolved run.
        run: its folder; has ``architecture.json``.
        searched: what the search derived, or the round before.
        note: told of each round.
        meter: of the device; None: only the size of files is measured.
    """

    def __init__(self, plan: Plan, run: RunDir, searched: SearchOutput, note: Callable[[str], None], meter: Meter | None) -> None:
        self._plan, self._run, self._searched, self._note = plan, run, searched, note
        self._meter = meter or Meter(running_of(plan))
        measured = [i for i, target in enumerate(plan.targets) if meter is not None or target.metric == FILE]
        rounds = run.read(TargetRounds) if (run.path / TargetRounds.FILE).is_file() else TargetRounds(budget=0)
        rounds = replace(rounds, budget=plan.config.budget.repair_rounds)
        first = rounds.rounds[0].choices if rounds.rounds else searched.choices
        scores = saved_scores(plan, run.read(ArchitectureRecord).derived_by, first)
        self.tries = Tries(plan, scores, plan.space.architecture(searched.choices), rounds, measured, self._meter.device)

    @property
    def measures(self) -> bool:
        """Whether any target can be measured, and any round be made."""
        return bool(self.tries.measured) and self.tries.rounds.budget > 0

    def fit(self) -> SearchOutput:
        """Measure architectures with random weights until one holds.

        Returns:
            The one that is retrained: what it was given where that holds.
        """
        while (architecture := self.tries.next()) is not None:
            self._add(architecture, self._read(architecture).of, BEFORE)
        ended = self.tries.end()
        self._keep(ended)
        chosen = ended.rounds[ended.deployed or 0]
        self._note(_ending(ended, len(self.tries.here)))
        if chosen.choices == self._searched.choices:
            return self._searched
        return self._with_weights(self._plan.space.architecture(chosen.choices))

    def check(self, model: Model) -> tuple[TargetRound, Readings]:
        """Measure the agent that was retrained, as it is deployed.

        Args:
            model: the file that is deployed.
        """
        self.tries.why = "retrained"
        readings = self._meter.read(model, [self._plan.targets[i] for i in self.tries.measured])
        made = self._add(self._plan.space.architecture(self._searched.choices), readings.of, AFTER)
        return made, readings

    def deployed(self, found: Deployment) -> TargetRound:
        """Keep what ``deploy`` measured of the agent.

        Args:
            found: on the device.
        """
        self.tries.why = "retrained"

        def reading_of(target: TargetRecord) -> Reading | None:
            figure = found.figure(target.metric, target.statistic, target.at)
            if target.metric == FILE:
                figure = float(self._file_bytes())
            return None if figure is None else Reading((figure,))

        return self._add(self._plan.space.architecture(self._searched.choices), reading_of, AFTER)

    def _file_bytes(self) -> int:
        artifact = self._run.read(AgentRecord).artifact
        if artifact is None:
            raise RunFolderError(f"its agent.json records no artifact; `cosearch export {self._run.path}` writes it")
        return artifact.bytes

    def another(self, retrained_steps: int) -> SearchOutput | None:
        """The architecture that takes the place of one that measured over after its retraining.

        Args:
            retrained_steps: environment steps of all retrainings so far.

        Returns:
            It, with the weights that it begins with; None where the rounds are over, and the last one stays the agent.
        """
        while (architecture := self.tries.next()) is not None:
            self._add(architecture, self._read(architecture).of, BEFORE)
        best = self.tries.best()
        if best is None:
            return None
        chosen = self.tries.rounds.rounds[best].choices
        brief = (self._run.path / SHARED_WEIGHTS).is_file()
        return replace(self._with_weights(self._plan.space.architecture(chosen)), retrained_steps=retrained_steps, brief=brief)

    def close(self) -> TargetRounds:
        """Write the outcome: the last architecture that was retrained is the agent."""
        ended = self.tries.end()
        last = max(i for i, each in enumerate(ended.rounds) if each.retraining == AFTER)
        outcome = HOLDS if ended.rounds[last].holds else ended.outcome
        if not ended.rounds[last].holds and (outcome == HOLDS or (outcome == USED_UP and self.tries.left > 0)):
            outcome = KEPT_OVER
        ended = replace(ended, deployed=last, outcome=outcome)
        self._keep(ended)
        self._note(_ending(ended, len(self.tries.here)))
        return ended

    def _read(self, architecture: Architecture) -> Readings:
        with temporary_folder("cosearch-") as folder:
            model = model_of(self._plan, architecture, folder)
            return self._meter.read(model, [self._plan.targets[i] for i in self.tries.measured])

    def _add(self, architecture: Architecture, reading_of: ReadingOf, retraining: str) -> TargetRound:
        here = self._meter.location.host is None and self._meter.location.tracker is None
        load = os.getloadavg()[0] if here else None
        made = self.tries.add(architecture, reading_of, retraining, load)
        self._keep(self.tries.rounds)
        count = len(self.tries.here)
        figures = "; ".join(figure_text(figure) for figure in made.figures)
        most = f" of at most {self.tries.rounds.budget}" if retraining == BEFORE else ""  # after it is always measured
        self._note(f"round {count}{most}, {retraining} the retraining: {figures}")
        return made

    def _keep(self, rounds: TargetRounds) -> None:
        self._run.write(rounds)

    def _with_weights(self, architecture: Architecture) -> SearchOutput:
        """An architecture with what its retraining begins with; ``architecture.json`` follows, see :func:`write_taken`."""
        plan, run, searched = self._plan, self._run, self._searched
        bounds = self.tries.constraints()
        others = tuple(
            other
            for other in searched.others
            if other.choices != architecture.choices and all(b.met_by(plan.space.architecture(other.choices)) for b in bounds)
        )
        weights = weights_of(architecture, plan, shared_supernet(run, plan))
        return SearchOutput(tuple(architecture.choices), weights, searched.steps, others)


def _ending(ended: TargetRounds, count: int) -> str:
    deployed = ended.rounds[ended.deployed or 0]
    name = "/".join(deployed.choice_names)
    if ended.outcome == HOLDS:
        return f"within its targets after {count} round{'s' * (count > 1)}: {name}"
    if ended.outcome == NOTHING_CAN:
        return f"no architecture of this space holds: the cheapest one was measured over; the agent is {name}"
    if ended.outcome == NONE_LEFT:
        return f"not shown to be within its targets, and no other architecture is left to try: the agent is {name}"
    if ended.outcome == KEPT_OVER:
        return f"over its targets, and no other architecture takes its place: the agent is {name}"
    return f"not within its targets, and the rounds (budget.repair_rounds={ended.budget}) are used up: the agent is {name}"
