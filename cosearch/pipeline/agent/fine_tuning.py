"""The last part of the retraining of an int8 agent: with its rounding, where that of the trained weights alone loses too much."""

from __future__ import annotations

from cosearch.deploy.artifacts.quantised import Quantiser
from cosearch.deploy.export import to_onnx
from cosearch.deploy.observing import observations
from cosearch.pipeline.checkpoint import State
from cosearch.planning.plan import Plan
from cosearch.seeding import Streams
from cosearch.space.network import AgentNetwork
from cosearch.training.algorithms import as_deployed
from cosearch.training.progress import Progress
from cosearch.training.rounding import Ranges, observed_ranges, round_from_now_on, round_no_more

SHARE = 0.2  # of the retraining's steps
OBSERVED = 512  # for the ranges, and as many for the loss
KEY = "rounding"


class FineTuning:
    """Decides at the begin of the last part, and keeps what it decided for checkpoints.

    Args:
        plan: the resolved run.
        network: that is trained, in place.
        streams: of the run; their seeds alone are used, so that a run without int8 stays as it was.
        steps: environment steps of the retraining.
    """

    def __init__(self, plan: Plan, network: AgentNetwork, streams: Streams, steps: int) -> None:
        self._plan, self._network, self._streams = plan, network, streams
        self._ranges: Ranges | None = None
        self._began: int | None = None  # the step of the decision
        wanted = plan.artifact.dtype == "int8" and plan.config.rl.on_policy  # else the head that learns is folded later
        self.begins_at = int((1 - SHARE) * steps) if wanted else None

    def begin(self, step: int, progress: Progress) -> None:
        """Round from now on, where the int8 form of the present weights is not within the tolerance.

        Args:
            step: environment steps of the retraining so far.
            progress: told what was decided.
        """
        if self._began is not None:
            return
        self._began = step
        plain = as_deployed(self._network, self._plan.config)
        seen = observations(plain, self._plan.config, 2 * OBSERVED, self._streams, test=False)
        model = to_onnx(plain, self._plan.space.frame_shape)
        quantiser = Quantiser(model, seen[:OBSERVED], seen[OBSERVED:], greedy=False)
        loss = quantiser.make().loss
        if loss <= quantiser.tolerance:
            progress.note(f"int8 without fine-tuning: {loss:.2g} nats, at most {quantiser.tolerance:g} are allowed")
            return
        progress.note(f"int8 would lose {loss:.2g} nats (at most {quantiser.tolerance:g}): the rest of the retraining is rounded")
        self._ranges = observed_ranges(plain, seen[:OBSERVED])
        round_from_now_on(self._network, self._ranges)

    def state(self) -> State:
        """For a checkpoint, beside the training's own."""
        return {KEY: {"ranges": None if self._ranges is None else dict(self._ranges), "began": self._began}}

    def restore(self, saved: State) -> None:
        """Go back to a :meth:`state`.

        Args:
            saved: of the stage.
        """
        if KEY not in saved:
            return
        self._began, ranges = saved[KEY]["began"], saved[KEY]["ranges"]
        if ranges is not None:
            self._ranges = {name: (low, high) for name, (low, high) in ranges.items()}
            round_from_now_on(self._network, self._ranges)

    def end(self, step: int) -> int:
        """Round no more.

        Args:
            step: environment steps of the whole retraining.

        Returns:
            How many of them were rounded.
        """
        round_no_more(self._network)
        return 0 if self._ranges is None or self._began is None else step - self._began
