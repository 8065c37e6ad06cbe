"""Every key of the configuration: two small runs that differ in it alone differ in something, and without effect it is refused.

``python -m pytest tests/config/test_every_field.py -s -k table`` prints them: key, run in which it has an effect, what differs.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from field_cases import ALONE, BREAKS, CASES, LEARNED, SHOWN_ALONE, SMALL
from made_table import made_table
from onnx_teachers import Flat, write_onnx
from PIL import Image
from pipeline_runs import Silent

from cosearch.compute import compute_device
from cosearch.config.run import Config, config_defaults, config_from_dict, config_to_dict, resolve
from cosearch.deploy.export import to_onnx
from cosearch.deploy.measure import measure_side_by_side
from cosearch.deploy.readings import Meter, Readings
from cosearch.pipeline.run import STAGES, work_on
from cosearch.pipeline.search.proposal_search import ProposalSearch
from cosearch.pipeline.session import open_session
from cosearch.planning.builtins import load_builtins
from cosearch.planning.options.conditions import GRADIENT, USED
from cosearch.planning.options.unused import EFFECTS, check_options, unused
from cosearch.planning.plan import make_plan
from cosearch.planning.request import resolve_request
from cosearch.planning.task import resolve_task
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.rl.foreign.readers import read_policy
from cosearch.rl.foreign.understood import Said, TaskFacts
from cosearch.rl.learning.subject import NetworkSubject
from cosearch.seeding import Streams
from cosearch.space.derivation.derive import derive
from cosearch.space.network import AgentNetwork, impala_cnn
from cosearch.strategies.base import PROPOSAL_ONLY, STRATEGIES
from cosearch.training.algorithms import make_training
from cosearch.training.threads import set_threads
from latency_tables.board.timing import Visit
from latency_tables.errors import ConfigError

pytest.importorskip("minatar", reason="MinAtar is not installed")

CLOCKS = {"wall_s", "steps_per_s"}
FINISH = {"budget.eval_episodes": 2, "budget.parity_frames": 4, "budget.measure_s": 0.02, "budget.clip_frames": 3}


def word(key, value):
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


class Runs:
    """Runs and looks at them, each once; every look gives names and values."""

    def __init__(self, folder: Path, *, checked: bool = True) -> None:
        self.folder, self.checked, self.made, self.stores = folder, checked, {}, {}
        self.onnx = folder / "mine.onnx"
        network = AgentNetwork(impala_cnn((10, 10, 4), 3), torch.Generator().manual_seed(3)).eval()
        self.onnx.write_bytes(to_onnx(network, (10, 10, 4)))
        self.files = {"ONNX": self.onnx, "FREE": folder / "free.onnx", "PROBABILITIES": folder / "probabilities.onnx"}
        self.files["THIS"] = made_table(folder / "this.jsonl", SMALL)
        write_onnx(self.files["FREE"], Flat(400, 3), (10, 10, 4), free=(1, 2, 3))
        write_onnx(self.files["PROBABILITIES"], Flat(400, 3, probabilities=True), (10, 10, 4))
        self.files["ACTIONS"] = folder / "actions.onnx"
        write_onnx(self.files["ACTIONS"], Flat(400, 3), (10, 10, 4))
        task = TaskFacts("minatar:breakout", (10, 10, 4), 3)
        said = Said(outputs="action values", layout="channels_last", pixels=255)
        self.files["ACTIONS"].write_bytes(read_policy(self.files["ACTIONS"], task, said).stored())

    def with_files(self, words):
        """The words with the paths of the teachers that they name."""
        split = [part.partition("=") for part in words]
        return tuple(f"{key}{sign}{self.files.get(value, value)}" for key, sign, value in split)

    def look(self, name, words):
        words = self.with_files(words)
        if (name, words) not in self.made:
            self.made[name, words] = getattr(self, name)(words)
        return self.made[name, words]

    def planned(self, words):
        config = resolve_task(overrides=words)
        return make_plan(config if self.checked else replace(config, said=frozenset()))

    def session(self, words):
        plan = self.planned(words)
        folder = RunDir.create(self.folder / str(len(list(self.folder.iterdir()))), "one", to_json(plan.record("a test")))
        return open_session(folder, plan, Silent())

    def plan(self, words):
        plan = self.planned(words)
        record = to_json(plan.record(""))
        design = None if plan.accelerator is None else plan.accelerator.state()
        facts = {key: record[key] for key in ("table", "targets", "references", "space")}
        return {**facts, "agents": record.get("agents"), "design": design, "discount": plan.config.rl.discount}

    def computing(self, words):
        try:
            return {"device": str(compute_device(resolve(overrides=words).compute))}
        except ConfigError as error:
            return {"device": str(error)}

    def training(self, words):
        plan = self.planned(words)
        streams = Streams(0)
        network = derive(plan.space.architecture([0] * len(plan.space.points)), streams.torch("weights"))
        subject = NetworkSubject(network, lr=1e-3, bf16=False, device=torch.device("cpu"))
        return make_training(plan.config, subject, streams, None, total_steps=8)

    def threads(self, words):
        training = self.training(words)
        try:
            return {"threads": training.stage.lanes.count * torch.get_num_threads()}
        finally:
            training.close()
            set_threads(1)

    def first_frames(self, words):
        training = self.training(words)
        try:
            return {"frames": hashlib.sha256(training.stage.env.observe().tobytes()).hexdigest()}
        finally:
            training.close()

    def training_process(self, words):
        training = self.training(words)
        try:
            return {"where the environments live": type(training.stage.env.env).__name__}
        finally:
            training.close()

    def asked(self, words):
        session = self.session(words)
        search = ProposalSearch(session.plan, session.resources, session.run, session.log, session.checkpoints)
        search._take_turns()
        session.log.close()
        return {"candidates asked for at once": len(search.waiting)}

    def search(self, words):
        if "strategy.store=/STORE" in words:
            words = tuple(part for part in words if part != "strategy.store=/STORE")
            self.look("search", words)
            return self.stages((*words, f"strategy.store={self.stores[words]}"), "search")
        return self.stages(words, "search")

    def retrain(self, words):
        return self.stages(words, "search", "retrain")

    def stages(self, words, *stages):
        session = self.session(words)
        work_on(session, {name: STAGES[name] for name in stages})
        lines = session.run.read_metrics()
        keys = dict.fromkeys(key for line in lines for key in line if key not in CLOCKS)
        self.stores[words] = session.run.path.parent
        weights = getattr(session.checkpoints.current.outputs, stages[-1]).weights
        digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()
        log = {f"log: {key}": [line.get(key) for line in lines] for key in keys}
        return {**log, "checkpoints": session.checkpoints.current.ordinal, "weights": digest}

    def finish(self, words):
        """A whole run; those of the last stage's keys that are not said are small."""
        said = {part.partition("=")[0] for part in words}
        if "control=CONTROL" in words:
            self.look("finish", tuple(part for part in words if part != "control=CONTROL"))
            words = tuple(part.replace("CONTROL", str(self.control)) for part in words)
        session = self.session((*words, *(word(key, value) for key, value in FINISH.items() if key not in said)))
        seconds = []

        def measured(*args, **options):
            seconds.append(options["seconds"])
            return measure_side_by_side(*args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cosearch.pipeline.agent.artifact.measure_side_by_side", measured)
            work_on(session, STAGES)
        run = session.run
        if "control" not in said:
            self.control = run.path
        control = run.read_json("summary.json")["control"]
        with Image.open(run.path / "clip.gif") as clip:
            frames = clip.n_frames
        return {
            "episodes": run.read_json("summary.json")["episodes"],
            "metric and whether solved": [run.read_json("summary.json")["evaluation"][key] for key in ("metric", "solved")],
            "episodes that were cut": run.read_json("summary.json")["episodes_cut"],
            "observations of the parity check": run.read_json("agent.json")["parity"]["observations"],
            "seconds of the measurement": seconds,
            "frames of the clip": frames,
            "control": None if control is None else control["score_mean"],
        }

    def rounds(self, words):
        """A run on a device that measures its agent over its target once after the retraining."""
        session = self.session((*words, *(word(key, value) for key, value in FINISH.items())))
        shares = iter([0.97, 1.1, 0.96, 0.99])

        def read(meter, model, targets):
            value = next(shares) * targets[0].value
            return Readings(1000, [Visit(value, value, value, value, value, value, value, 9, 1, 1.0)] * 3)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Meter, "read", read)
            work_on(session, STAGES)
        summary = session.run.read_json("summary.json")
        return {"rounds": len(summary.get("target_rounds", ())), "environment steps": summary["env_steps"]}


@pytest.fixture(scope="module", autouse=True)
def alone():
    """One thread; and a strategy that searches without a teacher."""
    before = torch.get_num_threads()
    set_threads(1)
    load_builtins()
    entry = replace(STRATEGIES.get("reinforce"), name="alone", uses_teacher=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "_entries", {**STRATEGIES._entries, "alone": entry})
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory):
    """The same runs where nothing is refused."""
    return Runs(tmp_path_factory.mktemp("unchecked"), checked=False)


def differing(one, other):
    return [key for key in one | other if one.get(key) != other.get(key)]


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and not key.endswith(("values", "kwargs")):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_every_field_has_its_conditions_and_a_case():
    assert list(EFFECTS) == list(config_defaults()) == list(CASES)
    assert set(EFFECTS) == set(leaves(config_to_dict(Config())))


LONG = (  # in the slow suite: seconds each
    *("env.step_limit_s", "env.episode_steps", "env.metric", "env.solved_at", "budget.repair_rounds", "budget.repair_share"),
    *("budget.eval_episodes", "budget.parity_frames", "budget.measure_s", "budget.clip_frames"),
    *("strategy.judge_by", "strategy.reduction_factor", "accel.every_steps", "accel.evaluations", "control"),
)


def is_long(key):
    return key in LONG or key.startswith(("dqn.", "sac."))


@pytest.mark.parametrize("key", [pytest.param(key, marks=[pytest.mark.slow] if is_long(key) else []) for key in CASES])
def test_table_of_what_each_field_changes(key, runs):
    case = CASES[key]
    found = differing(runs.look(case.look, case.base), runs.look(case.look, (*case.base, word(key, case.change))))
    assert found, f"{word(key, case.change)} changes nothing"
    print(f"| {key} | {case.look}: {' '.join(case.base)} {word(key, case.change)} | {', '.join(found[:3])} |")


def test_a_tasks_own_temperature_is_left_out_where_the_teacher_says_its_best_action_alone(runs):
    def planned(*words):
        return resolve_request(resolve_task(overrides=runs.with_files((*LEARNED, *words)))).config.distill.temperature

    assert planned() == 0.5 and planned("distill.teacher=ACTIONS", "distill.critic=0") == 1.0


def test_the_same_words_change_nothing(runs):
    assert differing(runs.look("search", SMALL), runs.search(SMALL)) == []


REFUSALS = [(key, condition) for key, conditions in EFFECTS.items() for condition in conditions]


def broken_by(key, condition):
    """Words with which the condition does not hold."""
    if condition is USED:
        return ("strategy.name=reinforce",) if key.removeprefix("strategy.") in PROPOSAL_ONLY else BREAKS[GRADIENT]
    return BREAKS[condition]


@pytest.mark.parametrize("key, condition", REFUSALS, ids=lambda value: getattr(value, "name", value))
def test_a_field_is_refused_wherever_one_of_its_conditions_does_not_hold(key, condition, runs):
    case, broken = CASES[key], broken_by(key, condition)
    said = runs.with_files((*case.base, word(key, case.change)))
    assert key not in unused(resolve_request(resolve_task(overrides=said)))
    request = resolve_request(resolve_task(overrides=runs.with_files((*said, *broken))))
    with pytest.raises(ConfigError) as caught:
        check_options(request)
    line = next(line for line in str(caught.value).splitlines() if line.startswith(f"{word(key, case.change)} has no effect "))
    assert condition.without(request, key) in line and "; leave it out" in line
    assert condition.instead(request, key) in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "key, condition",
    [pair for pair in REFUSALS if CASES[pair[0]].look in ("plan", "search", "retrain", "first_frames")],
    ids=lambda value: getattr(value, "name", value),
)
def test_what_is_refused_would_have_changed_nothing(key, condition, unchecked):
    """``pytest -m slow tests/config/test_every_field.py``: a minute."""
    case = CASES[key]
    words = (*case.base, *broken_by(key, condition))
    one, other = unchecked.look(case.look, words), unchecked.look(case.look, (*words, word(key, case.change)))
    assert set(differing(one, other)) <= SHOWN_ALONE.get(key, set())


@pytest.mark.parametrize("strategy, refused", [("reinforce", True), ("radars", True), ("s3nas", False), ("darts-prime", False)])
def test_a_bracket_begins_where_the_scores_prefer_something_though_nothing_learned(strategy, refused):
    words = ("strategy.warmup_fraction=1", f"strategy.name={strategy}", "budget.retrain_steps=256", "budget.bracket=2")
    found = unused(resolve_request(resolve_task(overrides=[*ALONE, "rl.minibatch=16", *words])))
    assert list(found) == ["budget.bracket"] * refused


def refused(*words, **layers):
    with pytest.raises(ConfigError) as caught:
        check_options(resolve_request(resolve_task(overrides=words, **layers)))
    return str(caught.value).splitlines()


def test_all_are_named_at_once_each_with_its_reason_and_what_to_set_instead():
    lines = refused(
        "rl.algorithm=a2c", "rl.epochs=5", "distill.teacher=none", "distill.actor=1", "dqn.n_step=5", "accel.chunks=2"
    )
    assert [line.partition("=")[0] for line in lines] == ["rl.epochs", "dqn.n_step", "distill.actor", "accel.chunks"]
    assert lines[0] == "rl.epochs=5 has no effect with rl.algorithm=a2c; leave it out, or set rl.algorithm=ppo"
    assert "zc706" in lines[3] and "has a table" in lines[3]


def test_what_was_said_counts_also_where_it_equals_the_default_and_wherever_it_was_said(tmp_path):
    default = Config().strategy.active_paths
    assert len(refused(f"strategy.active_paths={default}")) == 1
    file = tmp_path / "run.toml"
    file.write_text(f"[strategy]\nactive_paths = {default}\n")
    assert len(refused(file=file)) == len(refused(options={"strategy.active_paths": default})) == 1


def test_what_others_said_is_not_refused():
    smoke = resolve_task(preset="smoke", overrides=["env.name=minatar:breakout"])  # which says how many candidates
    assert smoke.strategy.candidates == 2 and "strategy.candidates" not in smoke.said
    check_options(resolve_request(smoke))
    family = resolve_task(overrides=["env.name=minatar:breakout", "objective.latency_target_s=0.001"])  # which says a ratio
    assert family.objective.latency_ratio == 0.4
    check_options(resolve_request(family))
    said = resolve_task(overrides=["env.name=minatar:breakout", "rl.algorithm=a2c", "rl.epochs=5"])
    recorded = config_from_dict(json.loads(json.dumps(config_to_dict(said))))
    assert recorded == said and recorded.said == frozenset() and "said" not in config_to_dict(said)
    check_options(resolve_request(recorded))  # an old run goes on


def test_a_request_cannot_say_what_was_said(tmp_path):
    with pytest.raises(ConfigError, match="said: unknown key"):
        resolve(overrides=["said=[]"])


def test_a_discount_that_was_said_is_told_from_the_default():
    assert resolve_request(resolve_task(overrides=["env.name=minatar:breakout"])).config.rl.discount == 0.99  # the teacher's
    with pytest.raises(ConfigError, match=r"the run has rl.gamma 0.999.*Set rl.gamma=0.99"):
        resolve_request(resolve_task(overrides=["env.name=minatar:breakout", "rl.gamma=0.999"]))
