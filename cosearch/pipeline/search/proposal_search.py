"""The search of a proposal strategy: candidates are trained, each for its share of the budget, and told.

With one worker they are trained here, one after the other, or all at once on the same frames (``together``). With several,
``cosearch.strategies.turns`` says when the next one is asked for and which is told next, and ``order.json`` records it. One
whose process is lost three times has failed, as one whose loss is not finite. A run that is killed loses at most the evaluations
in flight, and with one worker not even those.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cosearch.fleet.cluster import HERE
from cosearch.fleet.log import WorkLog
from cosearch.fleet.workers import Workers
from cosearch.pipeline.checkpoint import State
from cosearch.pipeline.search.candidate_records import Best, Item, Told, inheritance_of, outcome_record, worth
from cosearch.pipeline.search.derivation import Found
from cosearch.pipeline.search.found import found_candidate
from cosearch.pipeline.search.rungs import Rungs
from cosearch.pipeline.search.side_by_side import SideBySide
from cosearch.pipeline.search.together import Together
from cosearch.pipeline.search.told import (
    PredictedCosts,
    best_of,
    check_failures,
    check_judged,
    chosen_by,
    told_record,
    trained_on,
    trainings_of,
)
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.shared_weights import keep_shared
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import candidate_rungs
from cosearch.planning.needs import candidate_needs
from cosearch.planning.plan import Plan
from cosearch.record.order import OrderRecord
from cosearch.record.rundir import RunDir
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import Evaluation, Feasible, InheritingStrategy, ProposalStrategy, TargetsInTurn
from cosearch.strategies.turns import BEGIN, Turns, in_order
from cosearch.training.algorithms import as_trained
from cosearch.training.candidates import (
    WeightBank,
    candidate_job,
    candidate_streams,
    candidate_training,
    inherited_weights,
    outcome_of,
    packed,
    train_candidate,
    unpacked,
)
from cosearch.training.carried import carried


def proposal_search(plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> tuple[Found, ...]:
    """Search to the end of its budget, or go on where the checkpoint stands.

    Args:
        plan, resources, run, log, checkpoints: of the session; the run folder gets ``supernet.pt`` where candidates share
            weights, and ``order.json`` where several are trained at once and told in any order.

    Returns:
        What was found for each agent of the plan.
    """
    search = ProposalSearch(plan, resources, run, log, checkpoints)
    search.run()
    return search.found()


class ProposalSearch:
    """The search stage of one run.

    Args:
        plan, resources, run, log, checkpoints: of the session.
    """

    def __init__(self, plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> None:
        self.plan, self.config, self.resources, self.log, self.checkpoints = plan, plan.config, resources, log, checkpoints
        self.folder = run
        streams, section = resources.streams, self.config.strategy
        steps = candidate_rungs(self.config, plan.strategy, agents=len(plan.every))
        self.rungs = Rungs(steps, plan.strategy.reduction_factor(section), section.judge_by, shared=section.frames == "shared")
        self.together = Together(plan, resources, log, checkpoints, self.rungs) if self.rungs.shared else None
        self.targets = TargetsInTurn(tuple(Feasible(agent.constraints) for agent in plan.every))
        self.strategy: ProposalStrategy = plan.strategy.make(
            plan.space,
            plan.strategy.options(section),
            streams.torch("arch"),
            self.targets if plan.agents else self.targets.each[0],
        )
        self.bank: WeightBank | None = None
        if section.candidate_init == "shared":
            self.bank = WeightBank(as_trained(SuperNet(plan.space, streams.torch("weights")), self.config, streams))
        self.costs = PredictedCosts(plan)
        self.kept: dict[int, bytes] = {}  # weights of the candidates that were told, where later ones may start from them
        self.told: list[Told] = []
        self.best: list[Best | None] = [None for _ in plan.every]
        self.waiting: list[Item] = []
        cluster = resources.cluster if section.workers > 1 else HERE
        with carried([self.config], cluster) as self.brought:
            engine = cluster.engine(section.workers, self.brought.folder)
            self.workers = Workers(train_candidate, engine, candidate_needs(self.config))
        taught = plan.search_teacher(resources.teacher)
        self.teacher_sha256 = None if taught is None or not cluster.address else taught.record.weights_sha256()
        self.here = section.workers == 1 and not section.order
        in_batches = self.rungs.shared or not plan.strategy.any_order
        self.slots = self.rungs.candidates if self.rungs.shared else section.workers
        self.turns = Turns(self.slots, in_batches=in_batches, recorded=section.order)
        saved = checkpoints.current.stage_state
        if saved is not None:
            self.strategy.restore(saved["strategy"])
            self.told, self.waiting = saved["told"], saved["waiting"]
            self.best = [saved["best"], *saved.get("best_of_others", [])]
            self.kept = saved.get("kept", {})
            self.rungs.restore(saved)
            if self.together is not None:
                self.together.restore(saved)
            if self.bank is not None:
                self.bank.supernet.load_state_dict(saved["bank"])
            self.turns.restore(
                saved["events"] if "events" in saved else in_order(len(self.told), len(self.waiting), self.slots),
                [item["index"] for item in self.waiting],
            )
            for item in self.waiting:
                if "outcome" in item:
                    self.turns.end(item["index"])
            checkpoints.restore_streams()

    @property
    def done(self) -> int:
        """Environment steps of the candidates that were told, or of those that train together."""
        if self.together is not None:
            return self.together.step
        return sum(candidate["env_steps"] for candidate in self.told)

    def state(self, **changes: object) -> State:
        """The stage's state for a checkpoint; ``changes`` take the place of its entries."""
        bank = None if self.bank is None else {key: value.clone() for key, value in self.bank.supernet.state_dict().items()}
        return {
            "step": self.done,
            "strategy": self.strategy.state(),
            "told": list(self.told),
            "best": self.best[0],
            **({"best_of_others": self.best[1:]} if len(self.best) > 1 else {}),
            "waiting": list(self.waiting),
            "events": list(self.turns.events),
            "bank": bank,
            **({"kept": dict(self.kept)} if self.kept else {}),
            **self.rungs.state(),
            **({} if self.together is None else self.together.state()),
            **changes,
        }

    def run(self) -> None:
        """Train all candidates.

        Raises:
            RequestError: ``strategy.order`` is that of another search.
            ConfigError: candidates are to be compared by divergences that they do not have.
        """
        self.log.progress.stage("search", self.rungs.total, self.done)
        with self.workers, WorkLog(self.folder.path, self.log.progress.note) as log:
            trained = trainings_of(self.told) + sum("outcome" in item for item in self.waiting)
            trainings = SideBySide(self.workers, log, self.rungs.trainings - trained, self.log.progress.note)
            while self._take_turns():
                if self.together is not None:
                    self._train_together(self.together)
                elif self.here:
                    self._train_here(self.waiting[0])
                    self.turns.end(self.waiting[0]["index"])
                else:
                    self._save()
                    self._train_beside(trainings)
        if self.rungs.unspent:
            self.log.progress.note(self.rungs.unspent)

    def _take_turns(self) -> bool:
        """Begin and take what can be by now; whether a training is under way then."""
        while (turn := self.turns.next(self._asked < self.rungs.candidates or self.rungs.halving.more)) is not None:
            if turn == BEGIN:
                self.waiting.append(self.rungs.on() or self._ask())
                self.turns.begin(self.waiting[-1]["index"])
                continue
            self.turns.take(turn)
            self._tell(self.waiting.pop([one["index"] for one in self.waiting].index(turn)))
            if not self.waiting:
                self._save()
        return bool(self.waiting)

    @property
    def _asked(self) -> int:
        return len(self.told) + sum("before" not in item for item in self.waiting)

    def _save(self) -> None:
        if not self.here and self.plan.strategy.any_order:
            self.folder.write(OrderRecord(order=tuple(self.turns.events)))
        self.checkpoints.save(self.state())

    def _ask(self) -> Item:
        """Ask for the next candidate; with workers it keeps the weights that it starts from, which later ones may change."""
        accelerator, index = self.plan.accelerator, self._asked
        if accelerator is not None:
            accelerator.start_over()
        self.targets.take_turn(index)
        architecture = self.strategy.ask()
        inherited = self.strategy.inherits() if isinstance(self.strategy, InheritingStrategy) else None
        if accelerator is not None:
            accelerator.optimise(architecture, accelerator.options.evaluations)
        item = self.costs.asked(index, architecture)
        if inherited is not None:
            item["inherited"] = inherited.parent, list(inherited.blocks)
        bank_learned = self.bank is not None and any("failure" not in one for one in self.told)
        item["learned"] = bank_learned or inherited is not None
        return item if self.here else {**item, "start": self._packed(item)}

    def _facts(self, item: Item) -> dict[str, object]:
        return {"candidate": self._name(item), "latency_argmax_s": item["latency_s"], **item["searches"]}

    def _name(self, item: Item) -> str:
        return "/".join(self._architecture(item).choice_names)

    def _architecture(self, item: Item) -> Architecture:
        return self.plan.space.architecture(item["choices"])

    def _start(self, item: Item) -> dict[str, Tensor] | None:
        """The first weights of a candidate; None: its own."""
        architecture, inheritance = self._architecture(item), inheritance_of(item)
        if self.bank is not None:
            return self.bank.weights(architecture)
        if inheritance is None:
            return None
        streams = candidate_streams(self.config.seed, item["index"])
        network = self._network(item, streams)
        inherited_weights(
            network,
            inheritance,
            lambda index: (self.plan.space.architecture(self.told[index]["choices"]), unpacked(self.kept[index])),
        )
        return network.state_dict()

    def _network(self, item: Item, streams: Streams) -> AgentNetwork:
        """A candidate's network with the weights of its own random numbers."""
        return as_trained(derive(self._architecture(item), streams.torch("weights")), self.config, streams)

    def _train_together(self, together: Together) -> None:
        """Train all that wait on the same frames; the checkpoint may fall between any two updates."""
        seed = self.config.seed
        networks = {item["index"]: self._network(item, candidate_streams(seed, item["index"])) for item in self.waiting}
        together.train(self.waiting, networks, self._facts, self.state)
        for item in self.waiting:
            self.turns.end(item["index"])

    def _train_here(self, item: Item) -> None:
        """Train a candidate in this process; the checkpoint may fall between any two of its updates."""
        streams = candidate_streams(self.config.seed, item["index"])
        network = self._network(item, streams)
        start = None if "paused" in item else self._start(item)
        if start is not None:
            network.load_state_dict(start)
        teacher = self.plan.search_teacher(self.resources.teacher)
        steps, inherited = self.rungs.whole(item), item.get("learned", False)
        training = candidate_training(self.config, network, streams, teacher, steps, inherited)
        earlier = self.done - item.get("before", 0)

        def state() -> State:
            under_way: Item = {**item, "training": training.state(), "streams": streams.state_dict()}
            return self.state(step=earlier + training.step, waiting=[under_way])

        def run() -> None:
            if "training" not in item and "paused" in item:
                paused = unpacked(item["paused"])
                item["training"], item["streams"] = paused["training"], paused["streams"]
            if "training" in item:
                go_on(training, item["training"], self.plan, self.log, "search", earlier)
                streams.load_state_dict(item["streams"])
            train(
                training,
                self.log,
                self.checkpoints,
                stage="search",
                interval_s=self.config.budget.checkpoint_interval_s,
                offset=earlier,
                state=state,
                extra=lambda: self._facts(item),
                until=self.rungs.until(item),
            )

        part = self.rungs.part(item)
        ended = outcome_of(training, network, run, streams if part is not None and part.keep else None)
        item["outcome"] = outcome_record(ended, [])

    def _job(self, item: Item) -> dict[str, Any]:
        return candidate_job(
            self.config,
            item["index"],
            item["choices"],
            self.rungs.whole(item),
            item["start"] if "start" in item else self._packed(item),
            self.brought,
            self.teacher_sha256,
            self.rungs.part(item),
            str(self.folder.path) if self.plan.inexact_resume is None else None,
            item.get("learned", False),
        )

    def _train_beside(self, trainings: SideBySide) -> None:
        """Train the waiting candidates in worker processes, and those that are begun as they end; each end is a checkpoint."""

        def name(item: Item) -> str:
            rung = item.get("rung", 0)
            return f"candidate {item['index']} ({self._name(item)}){f', rung {rung}' if rung else ''}"

        def ended(item: Item) -> None:
            self.turns.end(item["index"])
            self._take_turns()

        trainings.train(lambda: self.waiting, name=name, job=self._job, ended=ended, save=self._save)

    def _packed(self, item: Item) -> bytes | None:
        start = None if "paused" in item else self._start(item)
        return None if start is None else packed(start)

    def _tell(self, item: Item) -> None:
        """Take the result of a training: the strategy is told of a candidate's first one."""
        outcome, earlier, first = item["outcome"], self.done - item.get("before", 0), item.get("rung", 0) == 0
        for line in outcome["lines"]:
            self.log.add({**line, "step": line["step"] + earlier, **self._facts(item)}, "search")
        if "anew" in outcome:
            self.log.begun_anew("search", self.done, outcome["anew"])
        place = self._told_first(item) if first else self._told_again(item)
        self.rungs.ended(item)
        packed_weights = outcome["weights"]
        if packed_weights is None:
            if first:
                check_failures(self.told, self.rungs.candidates, self._name(item), self.log)
            return
        if isinstance(self.strategy, InheritingStrategy):
            self.kept[place] = packed_weights
        weights = unpacked(packed_weights)
        if self.bank is not None:
            self.bank.keep(self._architecture(item), weights)
        for agent in range(len(self.best)):
            if best_of(agent, self.strategy, self.targets, self.told, self.plan) == place:
                self.best[agent] = {"choices": item["choices"], "weights": weights, "accelerator": item["accelerator"]}

    def _told_first(self, item: Item) -> int:
        """Tell the strategy how a candidate did; its place among those that were told."""
        outcome, inheritance, place = item["outcome"], inheritance_of(item), len(self.told)
        self.strategy.tell(
            Evaluation(
                self._architecture(item),
                worth(self.config.strategy.judge_by, outcome),
                item["latency_s"],
                failed=outcome["weights"] is None,
                asked=item["index"],
                energy_j=item.get("energy_j"),
                memory_bytes=item.get("memory_bytes"),
                env_steps=outcome["env_steps"],
                inherited=inheritance,
            )
        )
        self.told.append(told_record(item, place))
        check_judged(self.told, self.config)
        return place

    def _told_again(self, item: Item) -> int:
        """Record how a candidate did that trained on; its place among those told."""
        if "failure" in item["outcome"]:
            failure = item["outcome"]["failure"]
            self.log.progress.note(f"candidate {item['index']} ({self._name(item)}) trains no further: {failure}")
        return trained_on(self.told, item)

    def found(self) -> tuple[Found, ...]:
        """The best candidate for each agent, once all are trained; writes ``supernet.pt`` where candidates share weights.

        Raises:
            RunFailedError: no candidate was trained to its end, or none that meets the targets of an agent.
            ConfigError: candidates are to be compared by divergences that they do not have.
        """
        check_judged(self.told, self.config)
        if self.bank is not None:
            keep_shared(self.folder, self.bank.supernet)
        names = list(self.plan.agents) or [""]
        chosen = chosen_by(self.told, self.config) + (" that meet the targets" if self.plan.agents else "") + self.rungs.text
        return tuple(
            found_candidate(self.plan, self.resources.streams, name, best, self.told, chosen, self.done)
            for name, best in zip(names, self.best, strict=True)
        )
