"""``run.json``: what was asked of a run, and the device, table, teacher and versions that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from cosearch.record.json_record import FURTHER, OMITTED, JsonObject


@dataclass(frozen=True, kw_only=True)
class DeviceRecord:
    """The device and the runtime that a table is about.

    Attributes:
        name: such as ``jetson``; ``this`` is the machine of the run.
        description: in words.
        runtime, dtype: of the networks that the table prices.
        threads: of the runtime.
    """

    name: str
    description: str
    runtime: str
    dtype: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class CertificateRecord:
    """How well a table predicts whole networks that were measured but not used for fitting.

    Attributes:
        mape: mean absolute error, as a share of the measured latency.
        within_5, within_10: share of the networks predicted within 5 and 10 %.
        kendall_tau: rank correlation of predicted and measured latency.
        bias: mean signed error, as a share of the measured latency.
    """

    mape: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    bias: float


@dataclass(frozen=True, kw_only=True)
class TableRecord:
    """Which table prices the run.

    Attributes:
        table_id: SHA-256 of its content.
        provenance: measured, derived, estimated, modelled or synthetic.
        path: folder and name of the file; None for an accelerator.
        certificate: None where the table has none.
    """

    table_id: str
    provenance: str
    path: str | None
    certificate: CertificateRecord | None = None


@dataclass(frozen=True, kw_only=True)
class TeacherIdentity:
    """Which teacher the run learns from.

    Attributes:
        name: of its file, without ending.
        network: architecture and origin in words.
        weights_sha256: digest of its weights' file; None in runs of versions that did not record it.
        further_sha256: digests of the other files that its weights lie in (external data of an ONNX file), by name; None
            where there are none.
        reward_std: divisor of the rewards that its values mean; None where that is unknown or was not recorded.
        score_mean: mean return on held-out levels; None where nobody evaluated it.
        score_ci95: its 95 % interval.
        provenance: whatever else the teacher's file says of how it was made.
    """

    name: str
    network: str
    weights_sha256: str | None = field(default=None, metadata=OMITTED)
    further_sha256: Mapping[str, str] | None = field(default=None, metadata=OMITTED)
    reward_std: float | None = field(default=None, metadata=OMITTED)
    score_mean: float | None = field(default=None, metadata=OMITTED)
    score_ci95: tuple[float, float] | None = field(default=None, metadata=OMITTED)
    provenance: JsonObject = field(default_factory=dict, metadata=FURTHER)


@dataclass(frozen=True, kw_only=True)
class TargetRecord:
    """One bound that the agent is to keep.

    Attributes:
        metric: ``latency_s``, ``energy_j``, ``file_bytes`` or ``memory_bytes``.
        value: the bound, seconds, joules or bytes.
        margin: share of it that is kept free.
        statistic, at: of a latency: ``median`` or ``p99``, ``back-to-back`` or ``period``.
    """

    metric: str
    value: float
    margin: float
    statistic: str = field(default="median", metadata=OMITTED)
    at: str = field(default="back-to-back", metadata=OMITTED)

    @property
    def on_median(self) -> bool:
        """Whether it is on the median back to back, which every table predicts."""
        return (self.metric, self.statistic, self.at) == ("latency_s", "median", "back-to-back")

    @property
    def text(self) -> str:
        """What is bounded, in words."""
        if self.metric != "latency_s":
            return {"energy_j": "energy", "file_bytes": "file size", "memory_bytes": "peak memory"}[self.metric]
        return f"{self.statistic} latency, {'back to back' if self.at == 'back-to-back' else 'at the control period'}"


@dataclass(frozen=True, kw_only=True)
class ReferenceRecord:
    """A fixed agent that fits the task: predicted latency in seconds, parameters and multiply-accumulates."""

    latency_predicted_s: float
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class SpaceRecord:
    """The search space.

    Attributes:
        name: of the kind of space.
        config: its values.
        size: number of architectures.
        frame_shape: of one observation: height, width, channels; or features.
        num_actions: discrete actions, or length of an action vector.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``.
        parts: of an observation of several; empty: it is an image or a vector itself.
        action_sizes: of the factors of ``multi_categorical`` actions.
    """

    name: str
    config: JsonObject
    size: int
    frame_shape: tuple[int, ...]
    num_actions: int
    policy: str = "categorical"
    parts: tuple[JsonObject, ...] = field(default=(), metadata=OMITTED)
    action_sizes: tuple[int, ...] = field(default=(), metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class EnvironmentRecord:
    """What an environment takes and gives.

    Attributes:
        observation_shape: ``(height, width, channels)``, ``(features,)``, or ``(1, bytes)`` of several parts.
        observation_dtype: ``uint8`` or ``float32``.
        num_actions: discrete actions, or length of an action vector.
        policy: ``categorical``, ``multi_categorical`` or ``gaussian``.
        first_action: the environment's own number of the first discrete action.
        action_low, action_high: bounds of each component of an action vector, None where there is none; none at all for discrete
            actions.
        parts: of an observation, as it is packed: ``image pixels (8, 8, 3)``; empty: it has none.
        action_sizes: of the factors of ``multi_categorical`` actions.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: str
    num_actions: int
    policy: str
    first_action: int = 0
    action_low: tuple[float | None, ...] = ()
    action_high: tuple[float | None, ...] = ()
    parts: tuple[str, ...] = field(default=(), metadata=OMITTED)
    action_sizes: tuple[int, ...] = field(default=(), metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class FreshEpisodes:
    """Running episodes that could not be continued, by a resume or where a candidate trained on after a pause.

    Attributes:
        stage, step: where the run stood, in environment steps of the stage.
        environments: numbers of those whose episodes began anew.
    """

    stage: str
    step: int
    environments: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FamilyMember:
    """One of several agents that come from one search.

    Attributes:
        name: also of its folder, ``agents/NAME``.
        device: with runtime, dtype and threads, as its table is named.
        table_id: SHA-256 of that table's content.
        latency_target_s: the bound, seconds.
    """

    name: str
    device: str
    table_id: str
    latency_target_s: float


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """An earlier run that a search might have begun from.

    Attributes:
        name: of its folder in the store.
        task: its environment.
        digest: SHA-256 of its shared weights.
        distance: Fisher distance from its task to the search's, 0..1.
    """

    name: str
    task: str
    digest: str
    distance: float


@dataclass(frozen=True, kw_only=True)
class BegunFrom:
    """The earlier run whose shared weights a search began with.

    Attributes:
        store: folder of the earlier runs.
        digest: SHA-256 over names and digests of all that were compared.
        name: of the nearest, which was taken.
        runs: all that were compared.
    """

    store: str
    digest: str
    name: str
    runs: tuple[StoredRun, ...]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run is.

    Attributes:
        name: of the run; empty until it has a folder.
        created_utc: when its folder was made, ISO 8601.
        command: the command line.
        config: the resolved configuration, as ``cosearch.config.run.config_to_dict`` writes it.
        seed: of all random streams.
        versions: of what a result depends on.
        device, table, space: what architectures are chosen from and what prices them.
        teacher: None without one.
        targets: latency first.
        references: fixed agents by name.
        environment: what the task takes and gives; None in runs of versions that did not record it.
        exactly_resumable: a run that was interrupted and resumed equals one that was not.
        not_exactly_resumable_because: why not; absent where it is.
        fresh_episodes: where running episodes could not be continued, in their order.
        feasible_architectures: how many architectures of the space meet the targets; None where nobody counted.
        distinct_networks: how many different networks these are; None where nobody counted.
        agents: of a family; the figures above are of the first one. None at all for a single agent.
        trained_as: of an agent of a family: the one with the same network, whose retraining it shares; absent where it has its
            own.
        begun_from: the earlier run that the search began from; absent where it began anew.
    """

    FILE: ClassVar[str] = "run.json"

    name: str = field(default="", metadata=OMITTED)
    created_utc: str = field(default="", metadata=OMITTED)
    command: str
    config: JsonObject
    seed: int
    versions: Mapping[str, str]
    device: DeviceRecord
    table: TableRecord
    teacher: TeacherIdentity | None
    targets: tuple[TargetRecord, ...]
    references: Mapping[str, ReferenceRecord]
    space: SpaceRecord
    environment: EnvironmentRecord | None = field(default=None, metadata=OMITTED)
    exactly_resumable: bool = True
    not_exactly_resumable_because: str | None = field(default=None, metadata=OMITTED)
    fresh_episodes: tuple[FreshEpisodes, ...] = field(default=(), metadata=OMITTED)
    feasible_architectures: int | None = None
    distinct_networks: int | None = None
    agents: tuple[FamilyMember, ...] = field(default=(), metadata=OMITTED)
    trained_as: str | None = field(default=None, metadata=OMITTED)
    begun_from: BegunFrom | None = field(default=None, metadata=OMITTED)

    @property
    def latency_target_s(self) -> float | None:
        """The latency that was asked for, seconds."""
        return next((target.value for target in self.targets if target.metric == "latency_s"), None)
