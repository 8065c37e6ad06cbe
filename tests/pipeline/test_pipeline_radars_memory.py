"""RADARS in a search on MinAtar: what autograd keeps stays within its bound at every minibatch."""

import pytest
import torch
from pipeline_runs import Silent

from cosearch.config.run import resolve
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.space.supernet import SuperNet
from cosearch.strategies.gradient.radars import kept_bytes

WORDS = (
    *("env.name=minatar:breakout", "device=x86-epyc", "space.name=macro", "strategy.name=radars", "threads=1"),
    *("objective.latency_target_s=1.364e-5", "budget.search_steps=8192", "budget.retrain_steps=0"),
)


@pytest.mark.slow  # a search of some ten seconds
def test_the_bound_holds_at_every_minibatch_of_a_search(tmp_path, monkeypatch):
    pytest.importorskip("minatar", reason="MinAtar is not installed")
    plan = make_plan(resolve(overrides=WORDS))
    bound = 0.5 * kept_bytes(plan.space, [range(len(point.candidates)) for point in plan.space.points])
    kept, forward = [], SuperNet.forward

    def measured(self, frames, path, memories=None):
        if not torch.is_grad_enabled():
            return forward(self, frames, path, memories)
        own, saved = {weight.untyped_storage().data_ptr() for weight in self.parameters()}, {}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in own:
                saved[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = forward(self, frames, path, memories)
        kept.append(sum(size for size, _ in saved.values()) / len(frames))
        return outputs

    monkeypatch.setattr(SuperNet, "forward", measured)
    run = RunDir.create(tmp_path, "one", to_json(plan.record("a test")))
    opened = open_session(run, plan, Silent())
    work_on(opened, {"search": STAGES["search"]})
    opened.log.close()
    assert len(kept) > 150 and max(kept) <= bound
