"""``architecture.json``: the derived architecture, what each of its operations is predicted to cost, and how it was derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from cosearch.record.json_record import OMITTED, Absent, JsonObject

SHARED_WEIGHTS = "supernet.pt"  # beside it: what further architectures of the run begin from
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class OperationRecord:
    """One operation of the derived network, as its device executes it.

    Attributes:
        key: name of its row in the table.
        latency_s, energy_j: predicted, seconds and joules; None for an energy that nobody knows.
        macs, params: multiply-accumulates of one decision, and parameters.
        choice: index of its choice point, None for stem and head; absent where the order of a chain tells it.
    """

    key: str
    latency_s: float
    energy_j: float | None
    macs: int
    params: int
    choice: int | Absent | None = field(default=Absent.ABSENT, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """One layer on an accelerator; see ``accel_models.evaluation.LayerResult``. SI units; energies are None where unknown."""

    name: str
    kind: str
    chunk: int
    macs: int
    cycles: float
    latency_s: float
    dram_bytes: float
    energy_j: float | None
    energy_parts: Mapping[str, float] | None
    utilisation: float


@dataclass(frozen=True, kw_only=True)
class ResourcesRecord:
    """What a design occupies, or the limits of its platform; None where the platform has no such thing."""

    elements: float | None
    dsp: float | None
    bram18: float | None
    sram_bytes: float | None
    area_mm2: float | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """The derived network on an accelerator; see ``accel_models.evaluation.NetworkResult``. SI units."""

    latency_s: float
    interval_s: float
    frames_per_s: float
    single_frame_per_s: float
    energy_j: float | None
    dram_bytes: float
    chunk_s: tuple[float, ...]
    resources: ResourcesRecord
    provenance: str
    layers: tuple[LayerRecord, ...]


@dataclass(frozen=True, kw_only=True)
class AcceleratorRecord:
    """The accelerator and the network on it.

    Attributes:
        design: as ``accel_models.design.AccelDesign.to_dict`` writes it.
        objective: ``latency`` of one frame, or ``interval`` between frames.
        network: its costs, layer by layer.
        limits: of the platform.
    """

    design: JsonObject
    objective: str
    network: NetworkRecord
    limits: ResourcesRecord


@dataclass(frozen=True, kw_only=True)
class PredictedCosts:
    """What the derived architecture is predicted to cost.

    Attributes:
        latency_s, energy_j: of one decision, seconds and joules; None for an energy that nobody knows.
        overhead_s: part of the latency that no operation explains.
        interval_s: where it is expected, seconds, see ``interval`` of ``latency_tables.table.Prediction``; None where that is
            not known.
        provenance: of the table.
        device: its name.
        operations: in order of execution; with ``overhead_s`` their latencies sum to ``latency_s``.
        accelerator: None on a device with a table.
    """

    latency_s: float
    energy_j: float | None
    overhead_s: float
    interval_s: tuple[float, float] | None
    provenance: str
    device: str
    operations: tuple[OperationRecord, ...]
    accelerator: AcceleratorRecord | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """One architecture that a proposal strategy trained, or that a one-shot strategy scored with the weights of its supernet.

    Attributes:
        choices: one candidate's index for each choice point.
        score: mean return of the last training episodes, None where none ended; of a one-shot strategy the mean return on
            validation levels, or minus the loss on held-out frames.
        latency_s: predicted, seconds.
        env_steps: environment steps of its training or of its score.
        divergence: from the teacher, nats, the mean over the last half of its training; absent where none was distilled.
        failure: why it has no score; absent for one that was trained or scored to its end.
        asked: which proposal it was, from 0; absent where the candidates are in the order in which they were proposed.
        rung: of the successive halving that it reached, from 0; absent for 0.
        stopped: why it trained no further than that though it was chosen to; absent where it did.
        inherited_from: indices of the earlier candidates that its first weights came from; absent where they were its own.
    """

    choices: tuple[int, ...]
    score: float | None
    latency_s: float
    env_steps: int
    divergence: float | None = field(default=None, metadata=OMITTED)
    failure: str | None = field(default=None, metadata=OMITTED)
    asked: int | None = field(default=None, metadata=OMITTED)
    rung: int | None = field(default=None, metadata=OMITTED)
    stopped: str | None = field(default=None, metadata=OMITTED)
    inherited_from: tuple[int, ...] | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class RegressionRecord:
    """The regression of the losses of a search's paths on their choices, see ``cosearch.strategies.regression``.

    Attributes:
        scores: of each candidate at each choice point, in standard deviations of the loss.
        pairs: paths with their losses that it was fitted to.
        r2: share of the standardised losses' variance that the choices explain, 0..1.
        rank_correlation: Spearman's, of losses with what a fit without them predicts; None where either is constant.
        penalty: of the ridge.
    """

    scores: Rows
    pairs: int
    r2: float
    rank_correlation: float | None
    penalty: float


@dataclass(frozen=True, kw_only=True)
class BracketRecord:
    """One candidate of the retraining's bracket.

    Attributes:
        choices: one candidate's index for each choice point.
        latency_s: predicted, seconds.
        env_steps: environment steps of its training in the bracket.
        losses: what it was compared by in each rung that it took part in, the lower the better: mean divergence from the teacher
            in nats, without a teacher minus the mean return; None where no episode ended or its training failed.
    """

    choices: tuple[int, ...]
    latency_s: float
    env_steps: int
    losses: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """How the architecture was chosen.

    Attributes:
        method: in words.
        scored_by: ``scores`` or ``regression``, of a gradient search; ``episodes`` or ``frames``, of a one-shot search.
        scores, probabilities: of each candidate at each choice point at the end of a gradient search, from the logits.
        regression: absent where no single paths were drawn.
        unconstrained_choices: what would have been chosen without targets.
        candidates: what a proposal strategy trained, or a one-shot strategy scored, in order.
        supernet_steps: environment steps of the supernet that scored them; absent where each was trained alone.
        bracket: what began the retraining, by score; absent without a bracket.
    """

    method: str
    scored_by: str | None = field(default=None, metadata=OMITTED)
    regression: RegressionRecord | None = field(default=None, metadata=OMITTED)
    scores: Rows | None = field(default=None, metadata=OMITTED)
    probabilities: Rows | None = field(default=None, metadata=OMITTED)
    unconstrained_choices: tuple[int, ...] | None = field(default=None, metadata=OMITTED)
    candidates: tuple[CandidateRecord, ...] | None = field(default=None, metadata=OMITTED)
    supernet_steps: int | None = field(default=None, metadata=OMITTED)
    bracket: tuple[BracketRecord, ...] | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class ArchitectureRecord:
    """The derived architecture. The keys up to ``wiring`` are those of ``cosearch.space.space.Architecture.to_dict``.

    Attributes:
        format: of that part of the file.
        space, space_config: kind of the search space, and its values.
        frame_shape: of one observation: height, width, channels; or features.
        num_actions: discrete actions, or length of an action vector.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``.
        parts, action_sizes: see ``cosearch.record.run_record.SpaceRecord``.
        choices: index of the chosen candidate at each choice point.
        choice_names: their names.
        operations: shapes of the network's operations, in order of execution.
        wiring: for each operation the indices of those that it reads; None for a chain.
        candidate_names: names of all candidates at each choice point.
        predicted: costs.
        derived_by: how it was chosen.
    """

    FILE: ClassVar[str] = "architecture.json"

    format: str
    space: str
    space_config: JsonObject
    frame_shape: tuple[int, ...]
    num_actions: int
    policy: str = "categorical"
    parts: tuple[JsonObject, ...] = field(default=(), metadata=OMITTED)
    action_sizes: tuple[int, ...] = field(default=(), metadata=OMITTED)
    choices: tuple[int, ...]
    choice_names: tuple[str, ...]
    operations: tuple[JsonObject, ...]
    wiring: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=OMITTED)
    candidate_names: tuple[tuple[str, ...], ...]
    predicted: PredictedCosts
    derived_by: Derivation

    def __post_init__(self) -> None:
        if not len(self.choices) == len(self.choice_names) == len(self.candidate_names):
            raise ValueError(
                "choices, choice_names and candidate_names must have one entry for each choice point, got "
                f"{len(self.choices)}, {len(self.choice_names)} and {len(self.candidate_names)}"
            )
