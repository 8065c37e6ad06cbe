"""Wrong requests: one message that says what was expected, what was got and what to type; exit code 2; nothing left behind."""

import json
import sys

import numpy as np
import old_run
import pytest
import torch
import typer
from pipeline_runs import TINY
from small_table import make_file

from cosearch.cli.app import main
from cosearch.cli.commands import app
from cosearch.cli.verbs import compare, deploy  # noqa: F401  they add themselves
from cosearch.cli.verbs import teacher as teacher_verb  # noqa: F401
from cosearch.config.run import resolve
from cosearch.planning.builtins import load_builtins
from cosearch.planning.space import make_space
from cosearch.record.rundir import RunDir
from cosearch.rl.teacher import save_teacher
from cosearch.space.network import AgentNetwork, impala_cnn
from latency_tables.devices import find_table
from latency_tables.schema import write_table


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every command runs in an empty folder, and none gets to its work."""

    def begun(*args, **kwargs):
        raise AssertionError("a wrong request was taken")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cosearch.pipeline.run._work", begun)
    return tmp_path


@pytest.fixture
def refused(capsys, here):
    """Run a command that must be refused; gives its message."""

    def run(*words, code=2):
        before = sorted(here.rglob("*"))
        capsys.readouterr()
        assert main(list(words)) == code
        captured = capsys.readouterr()
        assert captured.out == "" and "Traceback" not in captured.err and captured.err.count("error:") <= 1
        assert sorted(here.rglob("*")) == before, "a refused request left something behind"
        return captured.err

    return run


@pytest.mark.parametrize(
    "words, parts",
    [
        (("--device", "jetsn"), ("no device 'jetsn'", "did you mean jetson", "--table FILE")),
        (("--env", "procgen:starpilo"), ("unknown environment 'procgen:starpilo'", "'procgen:starpilot'", "list envs")),
        (("--env", "procgn:starpilot"), ("procgn", "procgen")),
        (("--env", "starpilot"), ("expected FAMILY:GAME such as", "list envs")),
        (("--strategy", "a3c"), ("'a3c'", "a3cs")),
        (("rl.lrr=1",), ("rl.lrr: unknown key", "did you mean 'rl.lr'", "--dry-run")),
        (("rl.lr=fast", "env.num_envs=0"), ("2 faults", "rl.lr", "'fast'", "env.num_envs", "got 0")),
        (("rl=3",), ("rl",)),
        (("seed=1", "seed.x=3"), ("seed.x: 'seed' is a value, not a section",)),
        (("nonsense",), ("unknown verb 'nonsense'", "--help")),
        (("search", "nonsense"), ("expected KEY=VALUE such as rl.lr=3e-4, got 'nonsense'",)),
        (("--preset", "smok"), ("unknown preset 'smok'", "smoke, quick, judged, standard, paper", "Did you mean 'smoke'")),
        (("serch",), ("unknown verb 'serch'", "Did you mean 'search'")),
        (("list", "devicess"), ("devicess", "devices", "presets")),
        (("--devise", "jetson"), ("--devise", "--device")),
        (("--seed", "abc"), ("'--seed'", "valid integer")),
        (("--latency-target-ms", "0"), ("objective.latency_target_s", "greater than 0")),
        (("--config", "absent.toml"), ("absent.toml", "TOML")),
        (("env.num_envs=6",), ("env.num_envs (6) must be a multiple of strategy.paths_per_rollout (4)",)),
        (("strategy.active_paths=2",), ("strategy.active_paths=2 has no effect with strategy 'reinforce'", "a3cs")),
        (("--strategy", "a2d", "strategy.active_paths=2"), ("no effect with strategy 'a2d'", "that uses it: a3cs")),
        (("rl.reward_gamma=0.99",), ("rl.reward_gamma=0.99 has no effect", "teacher 'starpilot'", "distill.teacher=none")),
        (("distill.teacher=starpilo",), ("starpilo", "list teachers")),
        (("distill.teacher=none", "space.values.stem_chanels=3"), ("stem_chanels", "stem_channels")),
        (("--run", "../x", "distill.teacher=none"), ("the name of a run must be of letters", "'../x'")),
        (("resume", "runs/absent"), ("there is no run folder runs/absent",)),
        (("evaluate", "runs/absent"), ("there is no run folder runs/absent",)),
        (("export", "runs/absent"), ("there is no run folder runs/absent",)),
        (("report", "runs/absent"), ("runs/absent",)),
        *(
            (("evaluate", "x", "--solved-at", number), ("--solved-at", f"must be a finite number, got {number}"))
            for number in ("nan", "inf", "-inf")
        ),
        *(
            (("bench", "run", "--strategy", "random", "--latency-target-ms", number), ("must be finite and above 0, got",))
            for number in ("nan", "inf", "-1")
        ),
        *((("dashboard", "--follow", number), ("'--follow'",)) for number in ("nan", "inf", "-1")),
        (("evaluate", "x", "--levels", "all"), ("levels must be test or train, got 'all'",)),
        (("predict", "x.json"), ("give either --device NAME or --table FILE",)),
        (("predict", "x.json", "--device", "jetson"), ("x.json",)),
        (("sample", "--out", "s", "--space", "chian"), ("chian", "chain")),
        (("sample", "--out", "s", "--n", "0"), ("'--n'", "greater than or equal to 1")),
        (("teacher", "--env", "procgen:starpilot", "--out", "t.txt"), ("--out must be a .json file", "t.txt")),
        (("teacher", "--env", "procgen:starpilot", "--out", "t.json", "--network", "vgg"), ("'vgg'", "impala-cnn")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_word_is_answered_with_the_right_one(words, parts, refused):
    message = refused(*words)
    for part in parts:
        assert part in message, message


def test_an_impossible_target_names_the_cheapest_and_what_to_ask_for(refused):
    message = refused("--latency-target-ms", "0.0001", *TINY)
    assert (
        "no architecture of space 'chain' meets the target of 0.0001 ms of median latency, back to back: the cheapest, "
        in message
    )
    named, table = message.split("the cheapest, ")[1].split(",")[0], find_table("jetson")
    latency_s = {"/".join(a.choice_names): table.predict(a.ops()).latency_s for a in architectures()}
    assert len(latency_s) == 9**3 and latency_s[named] == pytest.approx(min(latency_s.values()), rel=1e-12)
    least = float(message.split("--latency-target-ms ")[1].split(",")[0]) / 1e3
    assert min(latency_s.values()) <= least < min(latency_s.values()) * 1.001


def architectures():
    """Every architecture of the tests' space."""
    space = make_space(resolve(overrides=TINY))
    return [space.architecture(choices) for choices in np.ndindex(*[len(point.candidates) for point in space.points])]


def test_an_impossible_energy_target_is_refused_before_the_search(refused):
    assert "no architecture of space 'chain' meets the target of 1e-12 J of energy: " in refused(
        *TINY, "objective.energy_target_j=1e-12"
    )


def test_a_missing_package_is_named_with_its_extra(refused, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "minatar"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "minatar", None)  # importing it raises ImportError
    assert "pip install 'cosearch[minatar]'" in refused("--env", "minatar:breakout")


@pytest.fixture
def table(here):
    """Path and text of a copy of a shipped table."""
    path = here / "table.jsonl"
    path.write_bytes(find_table("jetson").path.read_bytes())
    return path


@pytest.mark.parametrize("damage", ["absent", "folder", "empty", "truncated", "altered", "foreign", "binary"])
def test_a_table_that_cannot_be_trusted_is_refused(damage, table, refused):
    text = table.read_text()
    if damage in ("absent", "folder"):
        table.unlink()
    if damage == "folder":
        table.mkdir()
    elif damage != "absent":
        content = {
            "empty": "",
            "truncated": text[: len(text) // 2],
            "altered": text.replace('"scale": 1.0', '"scale": 0.5'),
            "foreign": '{"model": "resnet", "latency": 3}\n',
            "binary": "",
        }[damage]
        assert content != text
        table.write_text(content)
    if damage == "binary":
        table.write_bytes(bytes(range(256)) * 40)
    assert "table.jsonl" in refused("--table", "table.jsonl", *TINY)


def test_an_untouched_copy_of_a_table_is_taken(table, capsys, here):
    (here / "arch.json").write_text(json.dumps(architectures()[-1].to_dict()))
    assert main(["predict", "arch.json", "--table", "table.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "jetson"


def test_a_table_without_a_block_of_the_space_names_it_and_how_to_measure_it(here, refused):
    write_table(here / "small.jsonl", make_file())
    message = refused("--table", "small.jsonl", *TINY)
    assert "python -m latency_tables measure --device toy --op stem-3x64x64" in message
    missing = {op.key for architecture in architectures() for op in architecture.ops()}
    assert f"(and {len(missing) - 1} more: " in message


def make_run(here, name="one", **record):
    return RunDir.create(here / "runs", name, {"seed": 0, **record})


def test_an_existing_run_is_refused_and_resume_named(here, refused):
    make_run(here)
    assert "runs/one exists already; `cosearch resume runs/one` goes on with it" in refused("--run", "one", *TINY)


def test_a_folder_without_a_run_cannot_be_resumed(here, refused):
    (here / "other").mkdir()
    assert "other is not a run folder: it holds no run.json" in refused("resume", "other")


def test_a_damaged_record_of_a_run_is_refused(here, refused):
    run = make_run(here)
    assert "holds no configuration" in refused("resume", "runs/one")
    (run.path / "run.json").write_text('{"seed": 0, ')
    assert "run.json: cannot be read" in refused("resume", "runs/one")


def test_what_a_run_has_not_reached_yet_is_named(here, refused):
    make_run(here)
    assert "no agent.onnx yet: `cosearch resume runs/one` goes on" in refused("evaluate", "runs/one")
    assert "no trained agent yet: `cosearch resume runs/one` goes on" in refused("export", "runs/one")


def test_a_run_whose_checkpoints_are_all_damaged_says_so(here, refused, caplog):
    run = make_run(here)
    run.save_checkpoint({"stage": "search"}, 1).write_bytes(b"broken")
    assert "all 1 checkpoints in" in refused("resume", "runs/one")


@pytest.fixture
def teacher(here):
    """Path of a small untrained teacher of starpilot."""
    load_builtins()
    network = AgentNetwork(impala_cnn((64, 64, 3), 15), torch.Generator().manual_seed(0))
    path = here / "mine.json"
    save_teacher(path, network, env="procgen:starpilot", description="toy", gamma=0.999, reward_std=1.0, provenance={})
    return path


def test_a_teacher_of_another_game_is_refused(teacher, refused):
    message = refused("--env", "procgen:bigfish", "distill.teacher=mine.json")
    assert "teacher 'mine' plays procgen:starpilot, the run plays procgen:bigfish" in message and "cosearch teacher" in message


def test_a_teacher_that_learned_with_another_discount_is_refused(teacher, refused):
    assert "Set rl.gamma=0.999" in refused("distill.teacher=mine.json", "rl.gamma=0.9")


def test_a_discount_that_is_set_to_the_default_is_not_the_teachers(refused):
    assert "Set rl.gamma=0.99," in refused("--env", "minatar:breakout", "objective.latency_ratio=0.9", "rl.gamma=0.999")


TEACHER_DAMAGES = ("weights cut", "weights gone", "weights of another network", "record cut", "record of another kind")


@pytest.mark.parametrize("damage", TEACHER_DAMAGES)
def test_a_damaged_teacher_is_refused_before_the_search(damage, teacher, refused):
    weights = teacher.with_suffix(".safetensors")
    record = json.loads(teacher.read_text())
    if damage == "weights cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "weights gone":
        weights.unlink()
    elif damage == "weights of another network":
        teacher.write_text(json.dumps({**record, "operations": record["operations"][:-1]}))
    elif damage == "record cut":
        teacher.write_text(teacher.read_text()[:200])
    else:
        teacher.write_text(json.dumps({"format": "other"}))
    assert "mine" in refused("distill.teacher=mine.json", *TINY[:-1])


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"choices": [0, 0, 0]}', '"text"', '{"format": 1}'], ids=lambda text: text or "empty"
)
def test_a_damaged_architecture_file_is_refused(content, here, refused):
    (here / "arch.json").write_text(content)
    assert "arch.json" in refused("predict", "arch.json", "--device", "jetson")


def test_an_architecture_with_a_choice_out_of_range_is_refused(here, refused):
    values = architectures()[-1].to_dict()
    values["choices"] = [99, *values["choices"][1:]]
    (here / "arch.json").write_text(json.dumps(values))
    assert "arch.json" in refused("predict", "arch.json", "--device", "jetson")


@pytest.mark.parametrize(
    "summary, part",
    [
        (None, "summary.json; `cosearch resume"),
        (old_run.content("summary.json"), "is a run of 'reinforce', expected a run made with --strategy random or largest"),
        ({"strategy": "random"}, "summary.json: score_mean is missing"),
        ([], "summary.json: its content must be an object"),
    ],
    ids=["unfinished", "another strategy", "damaged", "a list"],
)
def test_a_control_that_is_none_is_refused_before_the_search(summary, part, here, refused):
    run = make_run(here, "control")
    if summary is not None:
        run.write_json("summary.json", summary)
        run.write_json("architecture.json", old_run.content("architecture.json"))
    assert part in refused("control=runs/control", *TINY)
    assert "there is no run folder" in refused("control=runs/absent", *TINY)


def test_a_sample_is_not_written_over(here, refused):
    assert main(["sample", "--out", "s"]) == 0
    assert main(["sample", "--out", "s"]) == 0, "the same command goes on with its own files"
    said = refused("sample", "--out", "s", "--seed", "1")
    assert "0000.json" in said and "exists already" in said


CONFIGURED = {  # each command that takes configuration values, with the least that it needs besides
    "search": ("search",),
    "compare": ("compare",),
    "teacher": ("teacher", "--env", "procgen:starpilot", "--out", "mine/teacher.json"),
    "compress": ("compress", "policy.onnx", "--env", "procgen:starpilot"),
}


def test_the_commands_that_take_configuration_values_are_known():
    group = typer.main.get_command(app)
    taking = {name for name, command in group.commands.items() if any(option.name == "overrides" for option in command.params)}
    assert taking == set(CONFIGURED)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize("verb", CONFIGURED)
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_made(verb, more, refused, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if verb in ("teacher", "compress") and more:
        more = ("rl.lr=1e-3",)  # they have no dry run
    message = refused(*CONFIGURED[verb], "compute=cuda", *more)
    assert "compute=cuda needs a GPU" in message and "compute=auto" in message and "compute=cpu" in message
