"""The search stage: a supernet under a gradient or one-shot strategy, or candidates one by one under a proposal strategy.

It gives the architecture, and the weights that this had learned.
"""

from __future__ import annotations

from cosearch.pipeline.checkpoint import SearchOutput
from cosearch.pipeline.search.derivation import Found, write_architecture
from cosearch.pipeline.search.gradient_search import gradient_search
from cosearch.pipeline.search.one_shot_search import one_shot_search
from cosearch.pipeline.search.proposal_search import proposal_search
from cosearch.pipeline.session import Checkpointing, Resources, RunLog
from cosearch.planning.plan import Plan
from cosearch.record.rundir import RunDir

SEARCHES = {"gradient": gradient_search, "proposal": proposal_search, "one-shot": one_shot_search}


def run_search(plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> SearchOutput:
    """Search to the end of its budget, or go on where the checkpoint stands.

    Args:
        plan: the resolved run.
        resources: what it computes with.
        run: gets ``architecture.json``, and on an accelerator ``accelerator.json``; see also the searches themselves.
        log: gets each update.
        checkpoints: get the state of the search.
    """
    (found,) = search_for_all(plan, resources, run, log, checkpoints)
    log.progress.note(write_architecture(plan, run, found.architecture, found.derived_by))
    return found.output


def search_for_all(plan: Plan, resources: Resources, run: RunDir, log: RunLog, checkpoints: Checkpointing) -> tuple[Found, ...]:
    """Search once for all agents of a plan; see :func:`run_search`.

    Args:
        plan, resources, run, log, checkpoints: of the session.

    Returns:
        What was found for each agent, in the order of the plan; no architecture is written.
    """
    return SEARCHES[plan.strategy.kind](plan, resources, run, log, checkpoints)
