"""What a run's checkpoint holds: the stage in progress with its state, what finished stages gave, the random streams, the time.

A checkpoint is plain values and tensors on the disk. Old ones, whose key for the outputs was ``handed_on``, stay readable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cosearch.cost.accelerator import SavedAccelerator

State = dict[str, Any]  # as torch.load gives it: tensors and plain values, which their owner's ``restore`` reads


@dataclass(frozen=True)
class Candidate:
    """An architecture, one candidate's index for each choice point, and its network's weights as the search left them."""

    choices: tuple[int, ...]
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class SearchOutput:
    """What the search gives to the retraining.

    Attributes:
        choices: of the derived architecture, one candidate's index for each choice point.
        weights: of its network, as the search left them.
        steps: environment steps of the search.
        others: further candidates of the retraining's bracket, the best first.
        retrained_steps: environment steps of the retrainings of architectures that measured over.
        brief: whether it is retrained for a share of the steps (``budget.repair_share``), from shared weights.
    """

    choices: tuple[int, ...]
    weights: dict[str, Tensor]
    steps: int
    others: tuple[Candidate, ...] = ()
    retrained_steps: int = 0
    brief: bool = False


@dataclass(frozen=True)
class RetrainOutput:
    """What the retraining gives to the finish: the final weights, its environment steps, and how many were with int8 rounding."""

    weights: dict[str, Tensor]
    steps: int
    fine_tuned_steps: int = 0


@dataclass(frozen=True)
class StageOutputs:
    """What the finished stages gave; None for a stage that is not finished."""

    search: SearchOutput | None = None
    retrain: RetrainOutput | None = None

    def to_dict(self) -> State:
        """Plain values for a checkpoint."""
        values: State = {}
        if self.search is not None:
            values |= {"choices": list(self.search.choices), "searched_weights": self.search.weights}
            values |= {"search_steps": self.search.steps}
            values |= {"others": [{"choices": list(o.choices), "weights": o.weights} for o in self.search.others]}
            again = {"retrained_steps": self.search.retrained_steps, "brief": self.search.brief}
            values |= again if self.search.retrained_steps else {}
        if self.retrain is not None:
            values |= {"weights": self.retrain.weights, "retrain_steps": self.retrain.steps}
            values |= {"fine_tuned_steps": self.retrain.fine_tuned_steps} if self.retrain.fine_tuned_steps else {}
        return values

    @classmethod
    def from_dict(cls, values: State) -> StageOutputs:
        """The outputs that :meth:`to_dict` made plain."""
        search, retrain = None, None
        if "choices" in values:
            others = tuple(Candidate(tuple(other["choices"]), other["weights"]) for other in values.get("others", ()))
            search = SearchOutput(
                tuple(values["choices"]),
                values["searched_weights"],
                values["search_steps"],
                others,
                values.get("retrained_steps", 0),
                values.get("brief", False),
            )
        if "weights" in values:
            retrain = RetrainOutput(values["weights"], values["retrain_steps"], values.get("fine_tuned_steps", 0))
        return cls(search, retrain)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two updates.

    Attributes:
        stage: in progress: ``search``, ``retrain``, ``finish`` or ``done``.
        streams: of the random streams.
        stage_state: of the stage in progress, with its ``step``; None at its begin.
        outputs: of the finished stages.
        wall_s: seconds of work so far, over all processes.
        ordinal: how many checkpoints there were before, and this one.
        accelerator: its present design; None on a device with a table.
    """

    stage: str
    streams: State
    stage_state: State | None = None
    outputs: StageOutputs = field(default_factory=StageOutputs)
    wall_s: float = 0.0
    ordinal: int = 0
    accelerator: SavedAccelerator | None = None

    @property
    def step(self) -> int:
        """Environment steps of the stage in progress, of a retraining with those before it."""
        before = self.outputs.search.retrained_steps if self.stage == "retrain" and self.outputs.search is not None else 0
        return before + (int(self.stage_state["step"]) if self.stage_state else 0)

    def to_dict(self) -> State:
        """Plain values and tensors."""
        accelerator = {} if self.accelerator is None else {"accelerator": self.accelerator}
        return {
            "stage": self.stage,
            "stage_state": self.stage_state,
            "stage_outputs": self.outputs.to_dict(),
            "wall_s": self.wall_s,
            "ordinal": self.ordinal,
            "streams": self.streams,
            **accelerator,
        }

    @classmethod
    def from_dict(cls, values: State) -> Checkpoint:
        """The checkpoint that :meth:`to_dict` made plain, in this version or an earlier one."""
        outputs = values["stage_outputs"] if "stage_outputs" in values else values["handed_on"]
        return cls(
            stage=values["stage"],
            streams=values["streams"],
            stage_state=values["stage_state"],
            outputs=StageOutputs.from_dict(outputs),
            wall_s=values["wall_s"],
            ordinal=values["ordinal"],
            accelerator=values.get("accelerator"),
        )
