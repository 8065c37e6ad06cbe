"""The search of a proposal strategy: candidates are trained, each for its share of the budget, and told in the order asked.

As many are asked for at once as there are worker processes, and told when the last of them is trained: with one they are trained
here, one after the other. A run that is killed loses at most the evaluations in flight, and with one process not even those.
"""

from __future__ import annotations

from typing import Any

import torch

from cosearch.pipeline.co_design import progress_of
from cosearch.pipeline.derivation import hand_on, meets_targets
from cosearch.pipeline.session import Session
from cosearch.planning.budget import candidate_shares
from cosearch.record.architecture import CandidateRecord, Derivation
from cosearch.record.json_record import from_json
from cosearch.space.derive import derive
from cosearch.space.space import Architecture
from cosearch.space.supernet import SuperNet
from cosearch.strategies.base import Evaluation, ProposalStrategy
from cosearch.training.algorithms import as_trained
from cosearch.training.candidates import (
    WeightBank,
    candidate_job,
    candidate_streams,
    candidate_training,
    outcome_of,
    train_candidate,
    unpacked,
)
from cosearch.training.workers import Workers
from latency_tables.errors import RunFailedError

FAILED_MAX = 0.5  # share of the candidates whose training may fail before the search does
Item = dict[str, Any]  # a candidate that was asked for: index, choices, latency_s, accelerator; then training, then outcome


def proposal_search(session: Session) -> None:
    """Search to the end of its budget, or go on where the checkpoint stands."""
    ProposalSearch(session).run()


class ProposalSearch:
    """The search stage of one run.

    Args:
        session: of the run.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.plan, self.config = session, session.plan, session.plan.config
        plan, streams, section = self.plan, session.streams, self.config.strategy
        self.shares = candidate_shares(self.config)
        self.strategy: ProposalStrategy = plan.strategy.make(
            plan.space,
            plan.strategy.options(section),
            streams.torch("arch"),
            lambda architecture: meets_targets(plan, architecture),
        )
        self.bank: WeightBank | None = None
        if section.candidate_init == "shared":
            self.bank = WeightBank(as_trained(SuperNet(plan.space, streams.torch("weights")), self.config, streams))
        self.told: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.waiting: list[Item] = []
        self.workers = Workers(train_candidate, section.workers)
        saved = session.checkpoint["stage_state"]
        if saved is not None:
            self.strategy.restore(saved["strategy"])
            self.told, self.best, self.waiting = saved["told"], saved["best"], saved["waiting"]
            if self.bank is not None:
                self.bank.supernet.load_state_dict(saved["bank"])
            streams.load_state_dict(session.checkpoint["streams"])

    @property
    def done(self) -> int:
        """Environment steps of the candidates that were told."""
        return sum(candidate["env_steps"] for candidate in self.told)

    def state(self, **changes: Any) -> dict[str, Any]:
        """The stage's state for a checkpoint; ``changes`` take the place of its entries."""
        bank = None if self.bank is None else {key: value.clone() for key, value in self.bank.supernet.state_dict().items()}
        return {
            "step": self.done,
            "strategy": self.strategy.state(),
            "told": list(self.told),
            "best": self.best,
            "waiting": list(self.waiting),
            "bank": bank,
            **changes,
        }

    def run(self) -> None:
        """All candidates, then the best one is handed on."""
        self.session.progress.stage("search", sum(self.shares), self.done)
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
                self.session.save(self.state())
        self._finish()

    def _ask(self) -> None:
        accelerator = self.plan.accelerator
        for index in range(len(self.told), min(len(self.told) + self.config.strategy.workers, len(self.shares))):
            if accelerator is not None:
                accelerator.start_over()
            architecture = self.strategy.ask()
            if accelerator is not None:
                accelerator.optimise(architecture, accelerator.options.evaluations)
            self.waiting.append(
                {
                    "index": index,
                    "choices": list(architecture.choices),
                    "latency_s": self.plan.constraints[0].cost.exact(architecture),
                    "accelerator": None if accelerator is None else accelerator.state(),
                    "searches": progress_of(accelerator),
                }
            )
        if len(self.waiting) > 1:
            self.session.save(self.state())

    def _facts(self, item: Item) -> dict[str, Any]:
        return {"candidate": self._name(item), "latency_argmax_s": item["latency_s"], **item["searches"]}

    def _name(self, item: Item) -> str:
        return "/".join(self._architecture(item).choice_names)

    def _architecture(self, item: Item) -> Architecture:
        return self.plan.space.architecture(item["choices"])

    def _train_here(self, item: Item) -> None:
        """Train a candidate in this process; the checkpoint may fall between any two of its updates."""
        if "outcome" in item:
            return
        architecture, streams = self._architecture(item), candidate_streams(self.config.seed, item["index"])
        network = as_trained(derive(architecture, streams.torch("weights")), self.config, streams)
        if self.bank is not None:
            network.load_state_dict(self.bank.weights(architecture))
        training = candidate_training(self.config, network, streams, self.session.search_teacher, self.shares[item["index"]])

        def state() -> dict[str, Any]:
            under_way = {**item, "training": training.state(), "streams": streams.state_dict()}
            return self.state(step=self.done + training.step, waiting=[under_way])

        def run() -> None:
            if "training" in item:
                training.restore(item["training"])
                streams.load_state_dict(item["streams"])
            self.session.train(training, stage="search", offset=self.done, state=state, extra=lambda: self._facts(item))

        item["outcome"] = {**outcome_of(training, network, run), "lines": []}

    def _train_beside(self) -> None:
        """Train the waiting candidates in worker processes; a checkpoint is made as each of them ends."""
        left = [item for item in self.waiting if "outcome" not in item]
        lines: list[list[dict[str, Any]]] = [[] for _ in left]
        weights = [None if self.bank is None else self.bank.weights(self._architecture(item)) for item in left]
        jobs = [
            candidate_job(self.config, item["index"], item["choices"], self.shares[item["index"]], start)
            for item, start in zip(left, weights)
        ]

        def sent(index: int, line: dict[str, Any]) -> None:
            if lines[index] and line["step"] <= lines[index][-1]["step"]:
                lines[index] = []  # its process had died: this is the second one
            lines[index].append(line)

        def done(index: int, outcome: dict[str, Any]) -> None:
            left[index]["outcome"] = {**outcome, "lines": lines[index]}
            self.session.save(self.state())

        self.workers.run(
            jobs, sent=sent, done=done, name=lambda index: f"candidate {left[index]['index']} ({self._name(left[index])})"
        )

    def _tell(self, item: Item) -> None:
        architecture, outcome = self._architecture(item), item["outcome"]
        for line in outcome["lines"]:
            self.session.log({**line, "step": line["step"] + self.done, **self._facts(item)}, "search")
        failure = outcome.get("failure")
        self.strategy.tell(Evaluation(architecture, outcome["score"], item["latency_s"], failed=failure is not None))
        told = {
            "choices": item["choices"],
            "score": outcome["score"],
            "latency_s": item["latency_s"],
            "env_steps": outcome["env_steps"],
        }
        if failure is not None:
            self.told.append({**told, "failure": failure})
            self._failed(item, failure)
            return
        self.told.append(told)
        weights = unpacked(outcome["weights"])
        if self.bank is not None:
            self.bank.keep(architecture, weights)
        if self.strategy.best() == item["index"]:
            self.best = {"choices": item["choices"], "weights": weights, "accelerator": item["accelerator"]}

    def _failed(self, item: Item, failure: str) -> None:
        """Say so; too many failures are a fault of the settings, not of the candidates."""
        failed, of = sum("failure" in told for told in self.told), len(self.shares)
        self.session.progress.note(f"candidate {item['index']} ({self._name(item)}) failed and is not the result: {failure}")
        if failed > FAILED_MAX * of:
            raise RunFailedError(
                f"{failed} of {of} candidates failed, at most {FAILED_MAX:.0%} may; the last one, {item['index']} "
                f"({self._name(item)}): {failure}"
            )

    def _finish(self) -> None:
        plan = self.plan
        architecture = plan.space.architecture(self.best["choices"])
        network = as_trained(derive(architecture, torch.Generator().manual_seed(0)), self.config, self.session.streams)
        network.load_state_dict(self.best["weights"])
        if plan.accelerator is not None:
            plan.accelerator.return_to(self.best["accelerator"])
        candidates = tuple(from_json(CandidateRecord, item, self.session.run.path, "told") for item in self.told)
        derived_by = Derivation(method="best training score among the candidates", candidates=candidates)
        hand_on(self.session, architecture, network, derived_by, self.done)
