"""Small one-shot searches on MinAtar for the tests of the pipeline."""

from pipeline_runs import TINY, Silent

from cosearch.config.run import resolve
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir

ONE_SHOT = (
    *(word for word in TINY if not word.startswith(("strategy.warmup", "strategy.lr", "rl.", "budget.retrain"))),
    *("rl.rollout_steps=16", "rl.minibatch=32", "rl.epochs=1"),
    "env.name=minatar:breakout",
    "strategy.name=one-shot",
    "strategy.values.proposals=5",
    "strategy.values.population=2",
    "strategy.values.score_share=0.5",
    "budget.search_steps=512",
    "budget.retrain_steps=0",
)
FRAMES = "strategy.values.scores=frames"


def session(folder, words):
    plan = make_plan(resolve(overrides=words))
    run = RunDir.create(folder, "one", to_json(plan.record("a test")))
    return open_session(run, plan, Silent())
