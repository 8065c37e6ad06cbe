"""The shared weights that a search leaves: an architecture of them is what the search itself gave to the retraining."""

import pytest
import torch
from pipeline_runs import TINY, TINY_PROPOSALS, Silent, changed

from cosearch.config.run import resolve
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.session import open_session
from cosearch.pipeline.shared_weights import shared_supernet, weights_of
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.results.architecture import SHARED_WEIGHTS
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError

pytest.importorskip("minatar", reason="MinAtar is not installed")

GAME = ("env.name=minatar:breakout",)
PROPOSALS = (*TINY_PROPOSALS, *GAME, "strategy.name=evolution", "strategy.candidates=2")
DQN = (
    *(word for word in TINY if not word.startswith("rl.")),
    *("rl.algorithm=dqn", "rl.rollout_steps=8", "dqn.learning_starts=16", "dqn.minibatch=16", "dqn.quantiles=4"),
    *GAME,
)


def searched(folder, words):
    plan = make_plan(resolve(overrides=words))
    run = RunDir.create(folder, "one", to_json(plan.record("a test")))
    session = open_session(run, plan, Silent())
    work_on(session, {"search": STAGES["search"]})
    return run, plan, session.checkpoints.current.outputs.search


@pytest.mark.parametrize("words", [(*TINY, *GAME), DQN], ids=["ppo", "dqn"])
def test_the_path_of_the_derived_architecture_has_the_weights_that_the_search_gave(words, tmp_path):
    run, plan, output = searched(tmp_path, words)
    supernet = shared_supernet(run, plan)
    architecture = plan.space.architecture(output.choices)
    assert not changed(weights_of(architecture, plan, supernet), output.weights)
    other = plan.space.architecture([(c + 1) % len(p.candidates) for c, p in zip(output.choices, plan.space.points)])
    assert changed(weights_of(other, plan, supernet), weights_of(other, plan, None))
    content = (run.path / SHARED_WEIGHTS).read_bytes()
    (run.path / SHARED_WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunFolderError, match="cannot be read as the shared weights"):
        shared_supernet(run, plan)


@pytest.mark.parametrize("shared", [False, True])
def test_candidates_that_share_nothing_leave_none(shared, tmp_path):
    words = (*PROPOSALS, f"strategy.candidate_init={'shared' if shared else 'scratch'}")
    run, plan, output = searched(tmp_path, words)
    assert (run.path / SHARED_WEIGHTS).is_file() is shared
    supernet = shared_supernet(run, plan)
    assert (supernet is not None) is shared
    first = weights_of(plan.space.architecture(output.choices), plan, supernet)
    assert not changed(first, weights_of(plan.space.architecture(output.choices), plan, supernet))
    assert {key: tensor.shape for key, tensor in first.items()} == {key: tensor.shape for key, tensor in output.weights.items()}
    assert all(torch.isfinite(tensor).all() for tensor in first.values())
