"""The search stage: a supernet under a gradient strategy, or candidates one after the other under a proposal strategy.

It hands on the architecture, how it was derived, and the weights that it had learned.
"""

from __future__ import annotations

from cosearch.pipeline.gradient_search import gradient_search
from cosearch.pipeline.proposal_search import proposal_search
from cosearch.pipeline.session import Session


def run_search(session: Session) -> None:
    """Search to the end of its budget, or go on where the checkpoint stands."""
    if session.plan.strategy.kind == "gradient":
        gradient_search(session)
    else:
        proposal_search(session)
