"""What a proposal search found: the best candidate's network as the search left it, and how it was chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cosearch.pipeline.checkpoint import SearchOutput
from cosearch.pipeline.search.candidate_records import Best, Told
from cosearch.pipeline.search.derivation import Found, contiguous
from cosearch.pipeline.search.told import records
from cosearch.planning.plan import Plan
from cosearch.record.results.architecture import Derivation
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.training.algorithms import as_trained
from latency_tables.errors import RunFailedError


def found_candidate(
    plan: Plan, streams: Streams, agent: str, best: Best | None, told: Sequence[Told], chosen: str, steps: int
) -> Found:
    """The best candidate for one agent.

    Args:
        plan: of the search.
        streams: of the run.
        agent: its name; empty where the search is for one.
        best: the candidate; None: there is none.
        told: all candidates.
        chosen: how it was chosen, in words.
        steps: environment steps of the search.

    Raises:
        RunFailedError: there is none.
    """
    if best is None:
        within = f" that meets the targets of {agent}" if agent else ""
        raise RunFailedError(f"no candidate{within} was trained to its end, so there is no result")
    architecture = plan.space.architecture(best["choices"])
    network = as_trained(derive(architecture, torch.Generator().manual_seed(0)), plan.config, streams)
    network.load_state_dict(best["weights"])
    if plan.accelerator is not None and best["accelerator"] is not None:
        plan.accelerator.return_to(best["accelerator"])
    candidates = records(told, plan, plan.agents.get(agent, plan))
    output = SearchOutput(tuple(architecture.choices), contiguous(network.state_dict()), steps)
    return Found(architecture, Derivation(method=chosen, candidates=candidates), output)
