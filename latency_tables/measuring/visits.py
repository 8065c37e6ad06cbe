"""What a measurement saw: the record between measuring and composing a table, free of connections and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latency_tables.board.timing import Paced, Visit


@dataclass(frozen=True)
class Hello:
    """What a measuring core says about its machine when it starts.

    Attributes:
        fingerprint: what the machine is, see ``board.sensors.fingerprint``.
        runtime_version: version of the runtime there.
        fixed: what the core could fix: ``nice``, ``cores``.
        power: name of the power sensor, or None.
        power_reason: why there is none.
        state: clocks, temperatures and load at its start.
    """

    fingerprint: Mapping[str, object] = field(default_factory=dict)
    runtime_version: str | None = None
    fixed: object = None
    power: str | None = None
    power_reason: str | None = None
    state: object = None

    @classmethod
    def from_answer(cls, answer: Mapping[str, object]) -> Hello:
        """The record in a core's answer to ``hello``."""
        fingerprint = answer.get("fingerprint")
        texts = {name: answer.get(name) for name in ("runtime_version", "power", "power_reason")}
        return cls(
            fingerprint if isinstance(fingerprint, dict) else {},
            fixed=answer.get("settings"),
            state=answer.get("state"),
            **{name: value if value is None else str(value) for name, value in texts.items()},
        )


@dataclass(frozen=True)
class MeasuredVisits:
    """Everything that a table is composed from, by model id.

    Attributes:
        visits: the visits of each model in the order of time.
        failed: why a model could not be run.
        graphs: node types of the graph that the runtime made, and how often each occurs.
        energies_j: joules of one inference, of the models whose power was read.
        paced: calls at a control period, of the networks that were called so.
        hello: what the machine says about itself; its state and settings are those of the measurement's first core (a state of
            None: it went on from an earlier version's journal).
        end_state: clocks, temperatures and load after the last round, or None.
        elapsed_s: wall time of the measurement in seconds, since it was begun or resumed.
        resumed: whether it went on from an interrupted one.
    """

    visits: Mapping[str, Sequence[Visit]]
    failed: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    energies_j: Mapping[str, float] = field(default_factory=dict)
    paced: Mapping[str, Paced] = field(default_factory=dict)
    hello: Hello = field(default_factory=Hello)
    end_state: object = None
    elapsed_s: float = 0.0
    resumed: bool = False
