"""The search of a proposal strategy: candidates are trained, each for its share of the budget, and told in the order asked.

As many are asked for at once as there are worker processes, and told when the last of them is trained: with one they are trained
here, one after the other. One whose process is lost three times has failed, as one whose loss is not finite. A run that is
killed loses at most the evaluations in flight, and with one process not even those.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cosearch.fleet.processes import Processes
from cosearch.fleet.workers import Workers
from cosearch.pipeline.checkpoint import SearchOutput, State
from cosearch.pipeline.search.candidate_records import Best, Item, Told, inheritance_of, outcome_record
from cosearch.pipeline.search.co_design import progress_of
from cosearch.pipeline.search.derivation import Found, contiguous
from cosearch.pipeline.search.told import PredictedCosts, best_of, check_failures, records
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.pipeline.shared_weights import keep_shared
from cosearch.pipeline.train import go_on, train
from cosearch.planning.budget import candidate_shares
from cosearch.planning.plan import Plan
from cosearch.record.architecture import Derivation
from cosearch.record.rundir import RunDir
from cosearch.space.derive import derive
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import (
    AsynchronousStrategy,
    Evaluation,
    Feasible,
    InheritingStrategy,
    ProposalStrategy,
    TargetsInTurn,
)
from cosearch.training.algorithms import as_trained
from cosearch.training.candidates import (
    WeightBank,
    candidate_job,
    candidate_streams,
    candidate_training,
    inherited_weights,
    outcome_of,
    train_candidate,
    unpacked,
)
from latency_tables.errors import RequestError, RunFailedError


def proposal_search(plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> tuple[Found, ...]:
    """Search to the end of its budget, or go on where the checkpoint stands.

    Args:
        plan, resources, run, log, checkpoints: of the session; the run folder gets ``supernet.pt`` where candidates share
            weights.

    Returns:
        What was found for each agent of the plan.
    """
    search = ProposalSearch(plan, resources, log, checkpoints)
    search.run()
    return search.found(run)


class ProposalSearch:
    """The search stage of one run.

    Args:
        plan, resources, log, checkpoints: of the session.
    """

    def __init__(self, plan: Plan, resources: Resources, log: RunLog, checkpoints: Checkpointing) -> None:
        self.plan, self.config, self.resources, self.log, self.checkpoints = plan, plan.config, resources, log, checkpoints
        streams, section = resources.streams, self.config.strategy
        self.shares = candidate_shares(self.config, plan.strategy, agents=len(plan.every))
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
        self.workers = Workers(train_candidate, Processes(section.workers))
        saved = checkpoints.current.stage_state
        if saved is not None:
            self.strategy.restore(saved["strategy"])
            self.told, self.waiting = saved["told"], saved["waiting"]
            self.best = [saved["best"], *saved.get("best_of_others", [])]
            self.kept = saved.get("kept", {})
            if self.bank is not None:
                self.bank.supernet.load_state_dict(saved["bank"])
            checkpoints.restore_streams()

    @property
    def done(self) -> int:
        """Environment steps of the candidates that were told."""
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
            "bank": bank,
            **({"kept": dict(self.kept)} if self.kept else {}),
            **changes,
        }

    def run(self) -> None:
        """Train all candidates."""
        self.log.progress.stage("search", sum(self.shares), self.done)
        with self.workers:
            while len(self.told) < len(self.shares):
                if not self.waiting:
                    self._ask()
                if self.config.strategy.workers == 1:
                    self._train_here(self.waiting[0])
                else:
                    self._train_beside()
                for item in self.waiting:
                    self._tell(item)
                self.waiting = []
                self.checkpoints.save(self.state())

    def _ask(self) -> None:
        accelerator = self.plan.accelerator
        first = len(self.told) + len(self.waiting)
        for index in range(first, min(len(self.told) + self.config.strategy.workers, len(self.shares))):
            if accelerator is not None:
                accelerator.start_over()
            self.targets.take_turn(index)
            architecture = self.strategy.ask()
            inherited = self.strategy.inherits() if isinstance(self.strategy, InheritingStrategy) else None
            if accelerator is not None:
                accelerator.optimise(architecture, accelerator.options.evaluations)
            item: Item = {
                "index": index,
                "choices": list(architecture.choices),
                "latency_s": self.plan.constraints[0].cost.exact(architecture),
                "accelerator": None if accelerator is None else accelerator.state(),
                "searches": progress_of(accelerator),
                "energy_j": self.costs.energy_j(architecture),
                "memory_bytes": self.costs.memory_bytes(architecture),
            }
            if inherited is not None:
                item["inherited"] = inherited.parent, list(inherited.blocks)
            self.waiting.append(item)
        if len(self.waiting) > 1:
            self.checkpoints.save(self.state())

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
        network = as_trained(derive(architecture, streams.torch("weights")), self.config, streams)
        inherited_weights(
            network,
            inheritance,
            lambda index: (self.plan.space.architecture(self.told[index]["choices"]), unpacked(self.kept[index])),
        )
        return network.state_dict()

    def _train_here(self, item: Item) -> None:
        """Train a candidate in this process; the checkpoint may fall between any two of its updates."""
        if "outcome" in item:
            return
        architecture, streams = self._architecture(item), candidate_streams(self.config.seed, item["index"])
        network = as_trained(derive(architecture, streams.torch("weights")), self.config, streams)
        start = self._start(item)
        if start is not None:
            network.load_state_dict(start)
        teacher = self.plan.search_teacher(self.resources.teacher)
        training = candidate_training(self.config, network, streams, teacher, self.shares[item["index"]])

        def state() -> State:
            under_way: Item = {**item, "training": training.state(), "streams": streams.state_dict()}
            return self.state(step=self.done + training.step, waiting=[under_way])

        def run() -> None:
            if "training" in item:
                go_on(training, item["training"], self.plan, self.log, "search")
                streams.load_state_dict(item["streams"])
            train(
                training,
                self.log,
                self.checkpoints,
                stage="search",
                interval_s=self.config.budget.checkpoint_interval_s,
                offset=self.done,
                state=state,
                extra=lambda: self._facts(item),
            )

        item["outcome"] = outcome_record(outcome_of(training, network, run), [])

    def _train_beside(self) -> None:
        """Train the waiting candidates in worker processes; a checkpoint is made as each of them ends.

        With a strategy that is told of each as it ends, the next one is asked for and begun at once, up to the last.
        """
        begun: list[Item] = []
        lines: list[list[State]] = []
        jobs: list[dict[str, object]] = []

        def begin() -> None:
            for item in self.waiting:
                if "outcome" not in item and not any(item is other for other in begun):
                    begun.append(item)
                    lines.append([])
                    steps = self.shares[item["index"]]
                    jobs.append(candidate_job(self.config, item["index"], item["choices"], steps, self._start(item)))

        def sent(index: int, line: State) -> None:
            if lines[index] and line["step"] <= lines[index][-1]["step"]:
                lines[index] = []  # its process had died: this is the second one
            lines[index].append(line)

        def done(index: int, outcome: State) -> None:
            begun[index]["outcome"] = outcome_record(outcome, lines[index])
            if isinstance(self.strategy, AsynchronousStrategy):
                self._tell_finished(self.strategy)
                begin()
            self.checkpoints.save(self.state())

        def lost(index: int, reason: str) -> None:
            steps = lines[index][-1]["step"] if lines[index] else 0
            done(index, {"score": None, "env_steps": steps, "weights": None, "failure": reason})

        begin()
        self.workers.run(
            jobs,
            sent=sent,
            done=done,
            lost=lost,
            name=lambda index: f"candidate {begun[index]['index']} ({self._name(begun[index])})",
        )

    def _tell_finished(self, strategy: AsynchronousStrategy) -> None:
        """Tell all that may be told by now, and ask for as many."""
        while True:
            wanted = strategy.next_told()
            ended = (one for one in self.waiting if "outcome" in one and wanted in (None, one["index"]))
            item = next(ended, None)
            if item is None:
                return
            self.waiting = [other for other in self.waiting if other is not item]
            self._tell(item)
            self._ask()

    def _tell(self, item: Item) -> None:
        architecture, outcome = self._architecture(item), item["outcome"]
        for line in outcome["lines"]:
            self.log.add({**line, "step": line["step"] + self.done, **self._facts(item)}, "search")
        packed_weights = outcome["weights"]
        inheritance, place = inheritance_of(item), len(self.told)
        wanted = self.strategy.next_told() if isinstance(self.strategy, AsynchronousStrategy) else None
        if wanted not in (None, item["index"]):
            raise RequestError(
                f"strategy.values.order wants proposal {wanted} told as number {place}, which is not asked for by then; repeat a "
                "recorded order with the strategy.workers that it was recorded with"
            )
        self.strategy.tell(
            Evaluation(
                architecture,
                outcome["score"],
                item["latency_s"],
                failed=packed_weights is None,
                asked=item["index"],
                energy_j=item.get("energy_j"),
                memory_bytes=item.get("memory_bytes"),
                env_steps=outcome["env_steps"],
                inherited=inheritance,
            )
        )
        told: Told = {
            "choices": item["choices"],
            "score": outcome["score"],
            "latency_s": item["latency_s"],
            "env_steps": outcome["env_steps"],
        }
        if item["index"] != place:
            told["asked"] = item["index"]
        if inheritance is not None:
            told["inherited_from"] = list(inheritance.evaluations)
        if packed_weights is None:
            told["failure"] = outcome["failure"]
            self.told.append(told)
            check_failures(self.told, len(self.shares), self._name(item), self.log)
            return
        self.told.append(told)
        if isinstance(self.strategy, InheritingStrategy):
            self.kept[place] = packed_weights
        weights = unpacked(packed_weights)
        if self.bank is not None:
            self.bank.keep(architecture, weights)
        for agent in range(len(self.best)):
            if best_of(agent, self.strategy, self.targets, self.told, self.plan) == place:
                self.best[agent] = {"choices": item["choices"], "weights": weights, "accelerator": item["accelerator"]}

    def found(self, run: RunDir) -> tuple[Found, ...]:
        """The best candidate for each agent, once all are trained.

        Args:
            run: gets ``supernet.pt`` where candidates share weights.

        Raises:
            RunFailedError: no candidate was trained to its end, or none that meets the targets of an agent.
        """
        if self.bank is not None:
            keep_shared(run, self.bank.supernet)
        names = list(self.plan.agents) or [""]
        return tuple(self._found(name, best) for name, best in zip(names, self.best, strict=True))

    def _found(self, name: str, best: Best | None) -> Found:
        plan = self.plan
        if best is None:
            within = f" that meets the targets of {name}" if name else ""
            raise RunFailedError(f"no candidate{within} was trained to its end, so there is no result")
        architecture = plan.space.architecture(best["choices"])
        network = as_trained(derive(architecture, torch.Generator().manual_seed(0)), self.config, self.resources.streams)
        network.load_state_dict(best["weights"])
        if plan.accelerator is not None and best["accelerator"] is not None:
            plan.accelerator.return_to(best["accelerator"])
        method = "best training score among the candidates" + (" that meet the targets" if name else "")
        derived_by = Derivation(method=method, candidates=records(self.told))
        output = SearchOutput(tuple(architecture.choices), contiguous(network.state_dict()), self.done)
        return Found(architecture, derived_by, output)
