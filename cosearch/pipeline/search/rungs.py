"""The trainings of a proposal search by rung of the successive halving: how long each is, and which candidates may train on."""

from __future__ import annotations

from collections.abc import Sequence

from cosearch.config.search import JudgeBy
from cosearch.pipeline.checkpoint import State
from cosearch.pipeline.search.candidate_records import Item, worth
from cosearch.strategies.successive_halving import SuccessiveHalving
from cosearch.training.candidates import Part


class Rungs:
    """The rungs of a search, one where nobody trains on, and what the candidates were paused with.

    Args:
        steps: see ``cosearch.planning.budget.candidate_rungs``.
        factor: ``strategy.reduction_factor``.
        judge_by: ``strategy.judge_by``.
        shared: those of a rung learn from the same frames.
    """

    def __init__(self, steps: Sequence[Sequence[int]], factor: int, judge_by: JudgeBy = "score", *, shared: bool = False) -> None:
        self.judge_by, self.shared = judge_by, shared
        self.steps, self.halving = steps, SuccessiveHalving([len(rung) for rung in steps], factor)
        self.paused: dict[int, Item] = {}

    @property
    def candidates(self) -> int:
        """How many begin."""
        return len(self.steps[0])

    @property
    def trainings(self) -> int:
        """How many there are, on all rungs together."""
        return sum(map(len, self.steps))

    @property
    def total(self) -> int:
        """Environment steps of all trainings together."""
        return sum(rung[0] for rung in self.steps) if self.shared else sum(map(sum, self.steps))

    @property
    def unspent(self) -> str:
        """At the end of a search: which environment steps no candidate was left for, in words; empty: there are none."""
        if self.shared:  # a frame is spent whoever learns from it
            return ""
        steps = sum(sum(steps[self.halving.promoted(rung) :]) for rung, steps in enumerate(self.steps[1:]))
        if not steps:
            return ""
        return (
            f"{steps:,} of {self.total:,} environment steps of the search were not spent: the trainings that failed left no "
            "candidate to train on"
        )

    @property
    def text(self) -> str:
        """What the best candidate is the best of, beside what it is judged by, and :attr:`unspent`; empty: of all alike."""
        longest = " that trained for longest" if len(self.steps) > 1 else ""
        together = ", all on the same frames" if self.shared else ""
        return longest + together + (f"; {self.unspent}" if self.unspent else "")

    def on(self) -> Item | None:
        """The next candidate that trains on; None where there is none yet."""
        chosen = self.halving.next()
        if chosen is None:
            return None
        index, rung, place = chosen
        item = self.paused.pop(index)
        item["rung"], item["place"] = rung, place
        self.paused = {key: one for key, one in self.paused.items() if self.halving.open(key, one.get("rung", 0))}
        return item

    def until(self, item: Item) -> int:
        """Environment steps of a candidate at the end of its present training."""
        return item.get("before", 0) + self.steps[item.get("rung", 0)][item.get("place", item["index"])]

    def whole(self, item: Item) -> int:
        """The same where it trains on to the end; its distillation goes by these."""
        return self.steps[0][item["index"]] + sum(rung[0] for rung in self.steps[1:])

    def part(self, item: Item) -> Part | None:
        """The part of its training that a candidate is in; None: it is the whole."""
        if len(self.steps) == 1:
            return None
        return Part(self.until(item), item.get("rung", 0) + 1 < len(self.steps), item.get("paused"))

    def ended(self, item: Item) -> None:
        """A candidate's training has ended; unless it failed, the candidate may train on."""
        outcome, rung = item["outcome"], item.get("rung", 0)
        if outcome["weights"] is None:
            self.halving.fail(item["index"], rung)
            return
        self.halving.add(item["index"], rung, worth(self.judge_by, outcome))
        if "paused" in outcome and self.halving.open(item["index"], rung):
            paused: Item = {**item, "before": outcome["env_steps"], "paused": outcome["paused"]}
            paused.pop("outcome", None)
            paused.pop("start", None)
            paused.pop("training", None)
            paused.pop("streams", None)
            self.paused[item["index"]] = paused

    def state(self) -> State:
        """All but the steps; nothing where nobody trains on."""
        return {} if len(self.steps) == 1 else {"halving": self.halving.state(), "paused": dict(self.paused)}

    def restore(self, state: State) -> None:
        """Go back to a :meth:`state`."""
        if "halving" in state:
            self.halving.restore(state["halving"])
            self.paused = state["paused"]
