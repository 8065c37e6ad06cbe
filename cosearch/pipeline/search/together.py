"""The trainings of a proposal search on shared frames (``strategy.frames=shared``): all that wait learn at once, rung by rung.

The environments, the members' weights and optimisers and all random numbers go on from one rung to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cosearch.pipeline.checkpoint import State
from cosearch.pipeline.search.candidate_records import Item, outcome_record
from cosearch.pipeline.search.rungs import Rungs
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import search_share
from cosearch.planning.plan import Plan
from cosearch.seeding import Streams, derived_seed
from cosearch.space.network import AgentNetwork
from cosearch.training.candidates import packed
from cosearch.training.shared_frames import Member, SharedFrames
from latency_tables.errors import ConfigError


class Together:
    """The joint training of one search.

    Args:
        plan, resources, log, checkpoints: of the session.
        rungs: of the search.
    """

    def __init__(self, plan: Plan, resources: Resources, log: RunLog, checkpoints: Checkpointing, rungs: Rungs) -> None:
        self.plan, self.resources, self.log, self.checkpoints, self.rungs = plan, resources, log, checkpoints, rungs
        self.step = 0  # environment steps so far
        self._saved: State | None = None

    def train(
        self,
        items: Sequence[Item],
        networks: Mapping[int, AgentNetwork],
        facts: Callable[[Item], Mapping[str, object]],
        state: Callable[[], State],
    ) -> None:
        """Train candidates to the end of their rung; each item gets its outcome.

        Args:
            items: all that are on this rung.
            networks: theirs by index, with their first weights.
            facts: of a candidate, for its lines of the log.
            state: -> the search's state for a checkpoint.

        Raises:
            NonFiniteError: the training of every one failed.
        """
        config, streams = self.plan.config, Streams(derived_seed(self.plan.config.seed, "shared frames", 63))
        teacher = self.plan.search_teacher(self.resources.teacher)
        if teacher is None:
            raise ConfigError("strategy.frames=shared needs a teacher: name one in distill.teacher")
        training = SharedFrames(
            config,
            networks,
            streams,
            teacher,
            total_steps=self.rungs.total,
            share=search_share(config),
            device=self.resources.device,
        )

        by_index = {item["index"]: item for item in items}

        def others(values: Mapping[str, object]) -> None:
            """A line for each candidate that learned; the leader's own comes last."""
            for index, own in training.latest.items():
                if index != training.leader:
                    self.log.add({**values, **own, **facts(by_index[index])}, "search")

        def keep() -> None:
            self.step = training.step
            self._saved = {"training": training.state(), "streams": streams.state_dict()}

        def whole() -> State:
            keep()
            return state()

        try:
            if self._saved is not None:
                go_on(training, self._saved["training"], self.plan, self.log, "search")
                streams.load_state_dict(self._saved["streams"])
            train(
                training,
                self.log,
                self.checkpoints,
                stage="search",
                interval_s=config.budget.checkpoint_interval_s,
                extra=lambda: facts(by_index[training.leader]),
                state=whole,
                after=others,
                until=self.rungs.until(items[0]),
            )
            keep()
        finally:
            training.close()
        score = training.collector.score if self.rungs.candidates == 1 else None  # of several the returns are of all who played
        for item in items:
            item["outcome"] = outcome_record(_ended(training.members[item["index"]], training.step, score), [])

    def state(self) -> State:
        """Everything, for a checkpoint."""
        return {"shared_step": self.step, "shared": self._saved}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        self.step, self._saved = state["shared_step"], state["shared"]


def _ended(member: Member, step: int, score: float | None) -> State:
    """How a candidate's part ended, see ``cosearch.training.candidates.outcome_of``; the joint training goes on itself."""
    if member.failure is not None:
        return {"score": None, "env_steps": step, "weights": None, "failure": member.failure}
    weights = packed(member.subject.network.cpu().state_dict())
    return {"score": score, "divergence": member.divergence, "env_steps": step, "weights": weights, "paused": b""}
