"""``summary.json``: the results of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cosearch.record.json_record import OMITTED
from cosearch.record.results.architecture import CandidateRecord
from cosearch.record.results.evaluation import EvaluationRecord
from cosearch.record.results.target_rounds import TargetRound

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ReferenceAgent:
    """A fixed agent beside the one that was found.

    Attributes:
        name: such as ``impala-cnn``.
        latency_predicted_s: for the target device, seconds.
        params, macs: its parameters, and multiply-accumulates of one decision.
        latency_measured_s: on the machine that timed the agent, seconds; None where nobody timed it there.
        predicted_ratio, measured_ratio: latency of the agent divided by this one's.
    """

    name: str
    latency_predicted_s: float
    params: int
    macs: int
    latency_measured_s: float | None
    predicted_ratio: float
    measured_ratio: float | None


@dataclass(frozen=True, kw_only=True)
class ControlRecord:
    """The finished run of a control beside the result.

    Attributes:
        strategy: ``random`` or ``largest``.
        score_mean, score_ci95, env_steps, latency_predicted_s, seed: as in its own summary.
        candidates: what it trained.
    """

    strategy: str = "random"
    score_mean: float
    score_ci95: Interval | None
    env_steps: int
    latency_predicted_s: float
    seed: int
    candidates: tuple[CandidateRecord, ...]


@dataclass(frozen=True, kw_only=True)
class AcceleratorSummary:
    """The accelerator that was searched with the agent.

    Attributes:
        design: file of the run folder that holds it.
        fixed: whether it was given and not searched.
        objective: ``latency`` of one frame, or ``interval`` between frames.
        chunks: stages of its pipeline.
        searches: of the design, so far.
        frames_per_s: of a full pipeline.
        single_frame_per_s: one divided by the latency of one frame.
        elements, dsp, bram18, sram_bytes, area_mm2: what it occupies; None where the platform has no such thing.
    """

    design: str
    fixed: bool
    objective: str
    chunks: int
    searches: int
    frames_per_s: float
    single_frame_per_s: float
    elements: float | None
    dsp: float | None
    bram18: float | None
    sram_bytes: float | None
    area_mm2: float | None


@dataclass(frozen=True, kw_only=True)
class TargetCheck:
    """One target of the agent, and what is known of it.

    Attributes:
        metric: ``latency_s``, ``energy_j``, ``file_bytes`` or ``memory_bytes``.
        statistic, at: of a latency: ``median`` or ``p99``, ``back-to-back`` or ``period``.
        target: the bound, in the metric's unit.
        predicted: of this figure; None where the table knows nothing of it.
        measured: on the device, or of the file; None where nobody measured it.
        met: whether the measured figure keeps the bound, without one the predicted; None without either.
        probability: that the device will measure at most the bound, from the residuals of the networks in the table's
            certificate; None for a measured figure, and where there are no residuals.
        residuals: of how many networks.
    """

    metric: str
    statistic: str
    at: str
    target: float
    predicted: float | None
    measured: float | None
    met: bool | None
    probability: float | None = None
    residuals: int = field(default=0, metadata=OMITTED)


def all_met(checks: Sequence[TargetCheck]) -> bool | None:
    """Whether all targets are kept: False where one is not, else None where one is not known.

    Args:
        checks: of the targets.
    """
    met = {check.met for check in checks}
    return False if False in met else None if None in met else True


def predicted_by(provenance: str) -> str:
    """``target_checked_by`` of targets that were not measured.

    Args:
        provenance: of the device's table; ``modelled`` for an accelerator.
    """
    return f"prediction ({provenance} {'accelerator' if provenance == 'modelled' else 'table'})"


@dataclass(frozen=True, kw_only=True)
class PolicyComparison:
    """The agent beside the policy that it was made from.

    Attributes:
        origin: kind of the policy's file.
        acting: how both play: ``sampled`` or ``greedy``.
        score_ci95: 95 % interval of the policy's mean return over its episodes; None with fewer than two.
        random_score_mean: mean return of actions at random, from which the share is counted.
        score_share: (agent - random) / (policy - random); None where the policy is no better than random.
        score_share_ci95: its 95 % bootstrap interval over the episodes of all three.
        latency_from: where ``policy_latency_s`` is from: ``measurement``, or the scaling of one on another machine; empty where
            there is none.
        latency_measured_s: median of the policy beside the agent, in the same runtime, on ``latency_measured_on``; None where
            nobody timed it there.
        latency_ratio: latency of the agent divided by the policy's, both timed in turns.
        latency_ratio_range: smallest and largest ratio of a round.
    """

    origin: str
    acting: str
    score_ci95: Interval | None
    random_score_mean: float
    score_share: float | None
    score_share_ci95: Interval | None
    latency_from: str
    latency_measured_s: float | None
    latency_ratio: float | None
    latency_ratio_range: Interval | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run found.

    Attributes:
        score_mean: mean return of the exported agent on held-out levels; of another metric where ``evaluation`` names one.
        score_ci95: its 95 % interval over the episodes; None with fewer than two.
        episodes: how many.
        episodes_cut: those that had not ended at ``env.episode_steps``; they count with their return so far.
        teacher_score_mean, teacher_score_ci95: of the teacher; None without one, or where nobody evaluated it.
        share_of_teacher: score divided by the teacher's.
        latency_predicted_s: of one decision on the target device, seconds.
        latency_predicted_for: name of that device.
        latency_measured_s: median of the exported agent, seconds; None where nobody timed it.
        latency_measured_on: the machine that timed it; of an emulated one with the word synthetic.
        latency_target_s: the bound, seconds.
        target_met: whether all targets are kept: each by its measured figure, without one by the predicted; None where none is
            known to be over and one is not known.
        target_checked_by: ``measurement`` where all of them were measured on the device; else the provenance and kind of the
            prediction; ``nothing`` where ``target_met`` is None.
        targets: each bound by itself; empty in runs of versions that had one.
        target_rounds: architectures that were measured on the device until one held; empty where none was.
        rounds_outcome: ``holds``, ``nothing can``, ``none left``, ``rounds used up`` or ``over``; empty without rounds.
        deployed_round: number of the round, from 1, whose architecture is the agent; None without rounds.
        table_provenance: measured, derived, estimated, modelled or synthetic.
        table_id: SHA-256 of its content; None in runs of versions that did not record it.
        params, macs: parameters, and multiply-accumulates of one decision.
        env_steps: environment steps of search and retraining.
        wall_s: compute time of the whole run, seconds.
        strategy, seed: of the search.
        reference_agents: fixed agents beside this one.
        control: None where no run of one was named.
        accelerator: None on a device with a table.
        policy_score_mean, policy_latency_s: of the policy that the agent was made from (`cosearch compress`): its mean return,
            and its latency on the target device in seconds; None for any other run, and where nobody timed it.
        policy: what else is known of the two.
        evaluation: what the scores are the means of, and what they amount to; None in runs of versions that did not record it.
    """

    FILE: ClassVar[str] = "summary.json"

    score_mean: float
    score_ci95: Interval | None
    episodes: int
    episodes_cut: int = 0
    teacher_score_mean: float | None
    teacher_score_ci95: Interval | None = None
    share_of_teacher: float | None = None
    latency_predicted_s: float
    latency_predicted_for: str
    latency_measured_s: float | None
    latency_measured_on: str
    latency_target_s: float
    target_met: bool | None
    target_checked_by: str
    targets: tuple[TargetCheck, ...] = field(default=(), metadata=OMITTED)
    target_rounds: tuple[TargetRound, ...] = field(default=(), metadata=OMITTED)
    rounds_outcome: str = field(default="", metadata=OMITTED)
    deployed_round: int | None = field(default=None, metadata=OMITTED)
    table_provenance: str
    table_id: str | None = field(default=None, metadata=OMITTED)
    params: int
    macs: int
    env_steps: int
    wall_s: float
    strategy: str
    seed: int
    reference_agents: tuple[ReferenceAgent, ...]
    control: ControlRecord | None = None
    accelerator: AcceleratorSummary | None = field(default=None, metadata=OMITTED)
    policy_score_mean: float | None = field(default=None, metadata=OMITTED)
    policy_latency_s: float | None = field(default=None, metadata=OMITTED)
    policy: PolicyComparison | None = field(default=None, metadata=OMITTED)
    evaluation: EvaluationRecord | None = field(default=None, metadata=OMITTED)
