"""Options of whole stages do what their descriptions say; that each has an effect: ``tests/config/test_every_field.py``."""

import numpy as np
import pytest
import torch
from pipeline_runs import TINY, Silent, changed

from cosearch.config.presets import PRESETS
from cosearch.config.run import resolve
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.search.derivation import most_likely_feasible
from cosearch.pipeline.session import open_session
from cosearch.planning.plan import make_plan
from cosearch.planning.space import make_space
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import save_teacher
from cosearch.space.derivation.derive import within
from cosearch.space.network import AgentNetwork, impala_cnn
from cosearch.strategies.base import Feasible
from cosearch.training.threads import set_threads
from latency_tables.errors import ConfigError, InfeasibleTargetError

RETRAIN_DIFFERS = ("budget.retrain_init=scratch", "rl.lr_end_fraction=0.9")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    set_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Run search, and retraining where it is asked for; gives what was handed on and the log of each stage."""
    made = {}

    def run(*overrides, retrain=False):
        key = (overrides, retrain)
        if key not in made:
            plan = make_plan(resolve(overrides=[*TINY, *overrides]))
            folder = RunDir.create(tmp_path_factory.mktemp("runs"), "one", to_json(plan.record("a test")))
            session = open_session(folder, plan, Silent())
            work_on(session, {name: STAGES[name] for name in (("search", "retrain") if retrain else ("search",))})
            log = folder.read_metrics()
            made[key] = session, [[line for line in log if line["stage"] == stage] for stage in ("search", "retrain")]
        return made[key]

    return run


def outputs(session):
    return session.checkpoints.current.outputs


def weights(session, stage="search"):
    return getattr(outputs(session), stage).weights


def test_the_same_options_change_nothing(stages):
    assert not changed(weights(stages()[0]), weights(stages("seed=0")[0]))


def test_a_micro_batch_changes_no_more_than_rounding(stages):
    base, other = stages("rl.bf16=false", "rl.minibatch=16"), stages("rl.bf16=false", "rl.minibatch=16", "rl.micro_batch=4")
    first, second = base[1][0][0], other[1][0][0]
    for key in ("loss_policy", "loss_value", "entropy", "grad_norm"):
        assert first[key] == pytest.approx(second[key], rel=1e-3, abs=1e-5)  # order of sums in float32, over 4 steps of Adam


@pytest.mark.parametrize("option", RETRAIN_DIFFERS)
def test_an_option_of_the_retraining_changes_the_final_weights_but_not_the_search(option, stages):
    (base, _), (other, _) = stages(retrain=True), stages(option, retrain=True)
    assert outputs(base).search.choices == outputs(other).search.choices and not changed(weights(base), weights(other))
    assert changed(weights(base, "retrain"), weights(other, "retrain"))


def test_no_retraining_keeps_the_searched_weights(stages):
    session, (_, log) = stages("budget.retrain_steps=0", retrain=True)
    assert not log and not changed(weights(session), weights(session, "retrain")) and outputs(session).retrain.steps == 0
    with pytest.raises(ConfigError, match=r"budget.retrain_init=scratch would export an agent that has learned nothing: set"):
        plan_of("budget.retrain_steps=0", "budget.retrain_init=scratch")
    with pytest.raises(ConfigError, match=r"learned nothing.*budget.retrain_init=inherit"):
        make_plan(resolve(preset="paper", overrides=["budget.retrain_steps=0"]))  # the preset says scratch


def test_learning_rate_falls_linearly_in_the_retraining_and_not_in_the_search(stages):
    _, (search, retrain) = stages("rl.lr_end_fraction=0.5", "rl.lr=0.004", retrain=True)
    assert [line["lr"] for line in search] == [0.004] * 4
    assert [line["lr"] for line in retrain] == pytest.approx([0.004 * (1 - 0.5 * done / 96) for done in (0, 32, 64)])


def test_temperature_falls_geometrically(stages):
    _, (log, _) = stages("strategy.name=a3cs", "strategy.temperature_start=4.0", "strategy.temperature_end=0.25")
    assert [line["temperature"] for line in log] == pytest.approx([4.0 * (1 / 16) ** (done / 128) for done in (0, 32, 64, 96)])


def test_the_architecture_rests_during_the_warm_up(stages):
    penalty = "strategy.target_form=penalty"
    _, (resting, _) = stages(penalty, "strategy.warmup_fraction=0.99")
    assert all(line["arch_probabilities"] == resting[0]["arch_probabilities"] for line in resting)
    _, (moving, _) = stages(penalty, "strategy.warmup_fraction=0.0")
    assert moving[0]["arch_probabilities"] != resting[0]["arch_probabilities"]
    _, (later, _) = stages(penalty, "strategy.warmup_fraction=0.5")
    rows = [line["arch_probabilities"] for line in later]
    assert rows[0] == rows[1] == resting[0]["arch_probabilities"] != rows[2]  # progress 0, 1/4, 1/2


def test_the_multiplier_holds_the_expected_latency_at_the_target(stages):
    words = ("strategy.warmup_fraction=0.5", "strategy.warmup_factor=1.2", "strategy.lr=0.001")
    session, (log, _) = stages(*words, "objective.latency_target_s=0.00022")
    target = session.plan.constraints[0].bound
    uniform = session.plan.constraints[0].cost.base + sum(
        float(np.mean(row)) for row in session.plan.constraints[0].cost.candidate_costs()
    )
    assert uniform > 1.2 * target, "the test needs a target that binds"
    assert [line["latency_expected_s"] for line in log[:2]] == pytest.approx([1.2 * target] * 2, rel=1e-6)
    assert log[-1]["latency_expected_s"] == pytest.approx(target, rel=0.01)  # the logits have moved by a few thousandths since
    assert all(line["cost_multiplier"] > 0 for line in log)
    free, (open_log, _) = stages("objective.latency_target_s=0.001")
    assert free.plan.constraints[0].bound > uniform and all(line["cost_multiplier"] == 0 for line in open_log)


def test_the_penalty_grows_its_multiplier_only_above_the_target_and_only_where_it_may(stages):
    words = ("strategy.target_form=penalty", "strategy.warmup_fraction=0.0")
    _, (log, _) = stages(*words, "objective.dual_lr=0.5", "strategy.lr=0.001")  # too slow to get under the target
    assert [line["cost_multiplier"] for line in log] == sorted(line["cost_multiplier"] for line in log)
    assert log[-1]["cost_multiplier"] > log[0]["cost_multiplier"] > 0
    _, (still, _) = stages(*words, "objective.dual_lr=0")
    assert all(line["cost_multiplier"] == 0 for line in still)
    _, (none, _) = stages(*words, "objective.dual_lr=0", "objective.quadratic=0")
    assert still[-1]["latency_expected_s"] < none[-1]["latency_expected_s"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_a_plan_whose_options_all_have_an_effect(preset):
    assert make_plan(resolve(preset=preset)).strategy.name in ("reinforce", "a3cs", "predictor")


def plan_of(*overrides):
    return make_plan(resolve(overrides=[*TINY, *overrides]))


def slowest_first(plan):
    """Scores that prefer the candidate that costs most."""
    return [list(np.asarray(row) / max(row)) for row in plan.constraints[0].cost.candidate_costs()]


def test_the_derived_architecture_is_the_best_that_meets_the_target():
    found = {}
    for target in (0.00026, 0.0003, 0.00035):  # many architectures cost the last two, up to rounding
        plan = plan_of(f"objective.latency_target_s={target}")
        scores = slowest_first(plan)
        every = [plan.space.architecture(choices) for choices in np.ndindex(*[len(p.candidates) for p in plan.space.points])]
        allowed = [a for a in every if plan.constraints[0].cost.exact(a) < target + 1e-15]
        best = max(sum(row[c] for row, c in zip(scores, a.choices)) for a in allowed)
        found[target] = most_likely_feasible(plan, scores)
        assert plan.constraints[0].cost.exact(found[target]) < target + 1e-15 and plan.constraints[0].value == target
        assert sum(row[c] for row, c in zip(scores, found[target].choices)) == pytest.approx(best, abs=1e-9)
    latencies = [plan.constraints[0].cost.exact(a) for a in found.values()]
    assert latencies == sorted(latencies) and len(set(latencies)) == 3


def test_without_a_target_it_is_a_share_of_the_reference():
    for ratio in (0.2, 0.3):
        plan = plan_of("objective.latency_target_s=null", f"objective.latency_ratio={ratio}")
        reference = plan.hardware.predict(impala_cnn((64, 64, 3), 15)).latency_s
        assert plan.constraints[0].value == pytest.approx(ratio * reference)


def test_a_cost_on_its_bound_is_within_it_whatever_the_order_of_the_sum():
    assert 0.1 + 0.2 > 0.3 and within(0.1 + 0.2, 0.3) and not within(0.3000001, 0.3) and within(0.2, 0.3)


def test_the_margin_is_kept_free():
    plan = plan_of("objective.latency_target_s=0.00035")
    tight = plan.constraints[0].cost.exact(most_likely_feasible(plan, slowest_first(plan)))
    careful = plan_of(f"objective.latency_target_s={tight * 1.001}", "objective.margin=0.1")
    found = careful.constraints[0].cost.exact(most_likely_feasible(careful, slowest_first(careful)))
    assert found <= 0.9 * 1.001 * tight and careful.constraints[0].bound == pytest.approx(0.9 * 1.001 * tight)


def test_an_energy_target_constrains_the_architecture():
    loose = plan_of("objective.latency_target_s=0.00035")
    free = most_likely_feasible(loose, slowest_first(loose))
    energy_j = loose.hardware.predict(free.ops()).energy_j
    bound = plan_of("objective.latency_target_s=0.00035", f"objective.energy_target_j={0.8 * energy_j}")
    found = most_likely_feasible(bound, slowest_first(bound))
    assert bound.hardware.predict(found.ops()).energy_j <= 0.8 * energy_j < energy_j and found.choices != free.choices
    meets_targets = Feasible(bound.constraints)
    assert meets_targets(found) and not meets_targets(free)
    with pytest.raises(InfeasibleTargetError, match="no architecture"):
        plan_of("objective.energy_target_j=1e-9")


def test_the_expected_energy_is_logged_where_it_is_a_target(stages):
    _, (log, _) = stages("objective.energy_target_j=0.004")
    assert all(line["energy_expected_j"] > 0 for line in log)
    assert all("energy_expected_j" not in line for line in stages()[1][0])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    network = AgentNetwork(impala_cnn((64, 64, 3), 15), torch.Generator().manual_seed(5))
    path = tmp_path_factory.mktemp("teacher") / "toy.json"
    return save_teacher(path, network, env="procgen:starpilot", description="toy", gamma=0.999, reward_std=2.0, provenance={})


def test_distillation_pulls_towards_the_teacher_and_fades(teacher, stages):
    plain = ("env.train_levels=50", "rl.lr=0.003")  # levels on which an agent scores within a few steps
    words = (*plain, f"distill.teacher={teacher.path}", "distill.end_fraction=0.25")
    pulled, (search, retrain) = stages(*words, "distill.actor=20", retrain=True)
    apart = [word for word in words if not word.startswith("distill.end_fraction")]  # refused where nothing is distilled
    let_go, (free, _) = stages(*apart, "distill.actor=0", "distill.critic=0", retrain=True)
    none, _ = stages(*plain, retrain=True)
    assert changed(weights(pulled), weights(let_go)) and changed(weights(none), weights(let_go))  # its reward scale counts too
    weight = [1 - 0.75 * done / 224 for done in range(0, 224, 32)]  # of search and retraining together
    assert [line["distill_weight"] for line in search] == pytest.approx(weight[:4])
    assert [line["distill_weight"] for line in retrain] == pytest.approx(weight[4:])
    assert search[-1]["distill_actor"] < free[-1]["distill_actor"]
    critic, _ = stages(*words, "distill.actor=20", "distill.critic=5", retrain=True)
    assert changed(weights(pulled), weights(critic))


def test_small_frames_start_from_a_stem_without_stride():
    words = [word for word in TINY if not word.startswith("space.values")]
    small = make_space(resolve(overrides=words, options={"env.name": "minatar:breakout"}))
    large = make_space(resolve(overrides=words))
    assert small.stem.stride == 1 and small.frame_shape == (10, 10, 4) and large.stem.stride > 1


def test_threads_are_those_of_the_configuration():
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            set_threads(count)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "words, message",
    [
        (("distill.fall_begin=0.6", "distill.fall_end=0.5"), "fall_begin=0.6 is after distill.fall_end=0.5"),
        (("distill.fall=geometric", "distill.end_fraction=0"), "equal factors never reach 0"),
        (("distill.fall_end=0.5", "distill.end_fraction=1"), "fall_end=0.5 has no effect with distill.end_fraction=1"),
        (
            ("distill.fall=geometric", "distill.fall_begin=0.5", "distill.fall_end=0.5", "distill.end_fraction=0.1"),
            "distill.fall=geometric has no effect with distill.fall_begin=distill.fall_end=0.5: the weights fall at once",
        ),
        (
            ("distill.fall_begin=1", "distill.end_fraction=0.1"),
            "distill.end_fraction=0.1 has no effect with distill.fall_begin=1",
        ),
    ],
)
def test_weights_that_cannot_fall_so_are_refused(words, message):
    plain = [] if any("end_fraction" in word for word in words) else ["distill.end_fraction=0.1"]
    with pytest.raises(ConfigError, match=message):
        make_plan(resolve(overrides=[*words, *plain]))


@pytest.mark.parametrize(
    "words, message",
    [
        (("rl.lr_hold_fraction=0.5", "rl.lr_end_fraction=1"), "rl.lr_hold_fraction=0.5 has no effect with rl.lr_end_fraction=1"),
        (("rl.lr_hold_fraction=1", "rl.lr_end_fraction=0.5"), "rl.lr_end_fraction=0.5 has no effect with rl.lr_hold_fraction=1"),
        (
            ("rl.algorithm=a2c", "rl.value_weight=0", "rl.clip=0.1"),
            "rl.clip=0.1 has no effect with rl.algorithm=a2c and rl.value_weight=0; leave it out, or set rl.value_weight",
        ),
        (
            ("rl.algorithm=dqn", "dqn.epsilon_start=0.02", "dqn.epsilon_fraction=0.5", "budget.retrain_init=scratch"),
            "dqn.epsilon_fraction=0.5 has no effect with dqn.epsilon_start=dqn.epsilon_end=0.02",
        ),
        (("strategy.name=random", "strategy.candidates=1", "strategy.workers=2"), "strategy.workers=2 has no effect with one"),
    ],
)
def test_what_another_value_leaves_without_effect_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(resolve(overrides=words))
