"""Searches with shared weights, looked up in a table that the tests write."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from cosearch.bench.benchmark import Benchmark
from cosearch.bench.shared_weights import SharedSearch, beside, beside_page
from cosearch.bench.table import table_path, write_table
from cosearch.cli.app import main
from cosearch.cli.progress import TerminalProgress
from cosearch.overview.folders import find_runs
from cosearch.planning.builtins import load_builtins
from cosearch.record.rundir import RunDir
from latency_tables.errors import ConfigError, RequestError, RunFolderError, TableError
from tests.support.bench_table import TASK, made_table

WORDS = ("env.num_envs=4", "rl.rollout_steps=8", "rl.minibatch=32", "rl.epochs=1", "budget.search_steps=256")
BRACKET = ("budget.bracket=2", "budget.retrain_steps=256")  # 8 rollouts of 32 steps: one for each of two
DEVICE = "pixel-3"
SEED_3 = "minatar-breakout-pixel-3-reinforce-s3"
QUIET = TerminalProgress(True)


def score(number, seed):
    return float(np.random.default_rng([number, seed]).normal(5.0, 2.0))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    load_builtins()
    folder = tmp_path_factory.mktemp("tables")
    write_table(made_table(score), table_path(TASK, folder))
    return folder


@pytest.fixture(scope="module")
def board(tables, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    searches = [SharedSearch(Benchmark(TASK, tables), name, DEVICE, WORDS) for name in ("reinforce", "random")]
    return searches, beside(searches, (3, 4), runs, QUIET), runs


def test_the_outcome_is_the_tables_entry_of_the_network_that_the_search_derived(board):
    searches, result, runs = board
    target_s = float(np.median(searches[0].benchmark.latencies_s(DEVICE)))
    for one in result.found["reinforce"]:
        folder = runs / f"minatar-breakout-pixel-3-reinforce-s{one.seed}"
        choices = json.loads((folder / "architecture.json").read_text())["choices"]
        number = int(np.ravel_multi_index(choices, searches[0].benchmark.sizes))
        truth = np.array([np.mean([score(i, seed) for seed in range(3)]) for i in range(540)])
        inside = [i for i, latency_s in enumerate(searches[0].benchmark.latencies_s(DEVICE)) if latency_s <= target_s]
        assert number in inside and one.feasible == len(inside)
        assert one.score == pytest.approx(truth[number])
        assert one.rank == 1 + sum(truth[i] > one.score + 1e-9 for i in inside)
        assert one.env_steps == 256 and one.queries == 0


def test_networks_that_are_measured_before_the_retraining_go_through_the_bracket_too(tables, tmp_path):
    words = (*WORDS, *BRACKET, "objective.file_target_bytes=10000000")
    found = SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, words).search(5, tmp_path, QUIET)
    (folder,) = tmp_path.iterdir()
    assert (folder / "rounds.json").is_file()
    architecture = json.loads((folder / "architecture.json").read_text())
    assert len(architecture["derived_by"]["bracket"]) == 2 and tuple(architecture["choices"]) == found.choices


def test_the_controls_have_the_same_steps_and_more_seeds(board):
    _, result, _ = board
    assert set(result.controls) == {"random", "ridge", "largest"}
    assert [one.seed for one in result.controls["random"]] == list(range(3, 23))  # looked up: more than the searches
    assert {one.queries for one in result.controls["random"]} == {1}  # 256 steps are less than one training: at least one
    assert {one.queries for one in result.controls["largest"]} == {0}
    page = beside_page([result])
    assert all(f"| {name} |" in page for name in ("reinforce", "random", "random, on the table", "ridge, on the table"))


def test_the_controls_ask_for_as_many_trainings_as_the_search_s_steps_are(board, monkeypatch):
    """163,840 steps are 6.67 trainings of 24,576: seven queries."""
    searches, _, _ = board
    choices = searches[0].benchmark.architectures[0].choices
    monkeypatch.setattr(SharedSearch, "search", lambda *_: SimpleNamespace(choices=choices, steps=163_840))
    controls = beside(searches[:1], (3, 4), None, QUIET).controls
    assert {one.queries for name in ("random", "ridge") for one in controls[name]} == {7}
    assert {one.env_steps for one in controls["random"]} == {7 * 24_576}


def test_the_interval_of_a_rule_without_searches_stands_on_the_other_sides_runs(board):
    """Twenty copies of one network are no twenty runs: Wilson's interval of how many of twenty random searches it beats."""
    _, result, _ = board
    largest, random = ([one.score for one in result.controls[name]] for name in ("largest", "random"))
    assert len(set(largest)) == 1 and len(random) == 20
    wins = sum(score < largest[0] for score in random)
    assert not any(score == largest[0] for score in random)
    low, high = binomtest(wins, 20).proportion_ci(method="wilson")
    (row,) = (line for line in beside_page([result]).splitlines() if line.startswith("| largest, on the table |"))
    assert row.endswith(f"| {wins / 20:.2f} [{low:.2f}, {high:.2f}] |")


def test_a_search_that_is_done_is_only_read(board):
    searches, result, runs = board
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.jsonl")}
    again = beside(searches, (3, 4), runs, QUIET)
    assert again.found == result.found
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("metrics.jsonl")} == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "part, key, fault, said",
    [
        ("table", "table_id", TableError, "began with the table 000000000000"),
        ("teacher", "weights_sha256", ConfigError, "began with another teacher"),
    ],
)
def test_another_table_or_teacher_than_it_began_with_is_refused(board, tmp_path, part, key, fault, said, finished):
    searches, _, runs = board
    folder = shutil.copytree(runs / SEED_3, tmp_path / SEED_3)
    record = json.loads((folder / "run.json").read_text())
    record[part][key] = "0" * 64
    (folder / "run.json").write_text(json.dumps(record))
    if not finished:
        shutil.rmtree(folder / "checkpoints")
    with pytest.raises(fault, match=rf"{said}.*Give the old one back, or move the folder away and begin again$"):
        searches[0].search(3, tmp_path, QUIET)


@pytest.mark.parametrize("finished", [True, False])
def test_other_commands_neither_go_on_with_it_nor_list_it(board, tmp_path, capsys, finished):
    """They would train its agent, and the steps of its bracket would not count."""
    _, _, runs = board
    folder = shutil.copytree(runs / SEED_3, tmp_path / SEED_3)
    if not finished:
        shutil.rmtree(folder / "checkpoints")
    for verb in ("resume", "export"):
        assert main([verb, str(folder), "--quiet"]) == 2
        assert "the same `cosearch bench search` goes on with it" in capsys.readouterr().err
    assert not (folder / "summary.json").exists()
    with pytest.raises(RunFolderError, match=r"no run in .* is not a teacher's or of `cosearch bench search`"):
        find_runs([tmp_path])


def test_a_search_that_resume_has_gone_on_with_is_not_counted(board, tmp_path):
    """An earlier version let it: the steps of the bracket are then not among those of the search."""
    searches, _, runs = board
    folder = RunDir.open(shutil.copytree(runs / SEED_3, tmp_path / SEED_3))
    state = folder.load_checkpoint()
    state["stage_outputs"] |= {"weights": state["stage_outputs"]["searched_weights"], "retrain_steps": 256}
    folder.save_checkpoint(state, state["ordinal"] + 1)
    with pytest.raises(RunFolderError, match=r"trained its agent.*move it away and search again"):
        searches[0].search(3, tmp_path, QUIET)


def test_other_values_and_another_space_are_refused(board, tables):
    _, _, runs = board
    other = SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, "rl.lr=0.1"))
    with pytest.raises(RunFolderError, match="other values; move it away"):
        other.search(3, runs, QUIET)
    for word in (
        "space.values.hidden=[0]",
        "space.values.stage_strides=[1]",
        "space.values.resolutions=[2]",
    ):  # or one not searched
        space = SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, word))
        with pytest.raises(RequestError, match=r"leave out space\.values"):
            space.plan(0)


@pytest.mark.parametrize(
    "word, said",
    [
        ("threads=2", "threads is set by the benchmark: one thread"),
        ("seed=3", "seed is set by --first-seed and --seeds"),
        ("env.name=minatar:asterix", r"env\.name is set by --task"),
        ("device=jetson", "device is set by --device"),
        ("table=own.jsonl", "table is set by --device"),
        ("strategy.name=darts", r"strategy\.name is set by --strategy"),
        ("space.name=cell", r"space\.name is set by the benchmark"),
        ("objective.latency_target_s=1", r"objective\.latency_target_s is set by --latency-target-ms"),
    ],
)
def test_a_word_whose_value_the_command_sets_is_refused(word, said, tables):
    with pytest.raises(ConfigError, match=said):
        SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, word)).plan(0)


@pytest.mark.parametrize(
    "word",
    [
        *("budget.eval_episodes=4", "budget.measure_s=1", "budget.clip_frames=0", "budget.parity_frames=8"),
        *("env.solved_at=3", "budget.retrain_init=scratch"),
    ],
)
def test_a_word_that_only_an_exported_agent_would_read_is_refused(word, tables):
    """Without a bracket nothing is retrained either."""
    with pytest.raises(ConfigError, match=f"{word.partition('=')[0]} has no effect here: leave it out"):
        SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, word)).plan(0)


def test_words_of_the_retraining_that_the_search_or_its_bracket_reads_are_taken(tables):
    """The learning rate of the search goes by the steps of the whole run; a bracket begins the retraining."""
    assert SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, "budget.retrain_steps=512")).plan(0)
    bracket = SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, *BRACKET, "budget.retrain_init=scratch")).plan(
        0
    )
    assert bracket.config.budget.retrain_init == "scratch"


def test_the_command_prints_the_board(board, tables, capsys):
    _, result, runs = board
    words = ["--seeds", "2", "--first-seed", "3", "--runs", str(runs), "--data", str(tables), "--quiet", *WORDS]
    assert main(["bench", "search", "--strategy", "reinforce", *words]) == 0
    printed = capsys.readouterr().out
    assert beside_page([replace(result, found={"reinforce": result.found["reinforce"]})]).strip() == printed.strip()


def test_the_bracket_chooses_between_the_search_and_the_largest_network(board, tables, tmp_path):
    """What it took counts, and the search before it is the one without a bracket."""
    searches, result, _ = board
    one = SharedSearch(Benchmark(TASK, tables), "reinforce", DEVICE, (*WORDS, *BRACKET))
    found = one.search(3, tmp_path, QUIET)
    folder = tmp_path / "minatar-breakout-pixel-3-reinforce-s3"
    bracket = json.loads((folder / "architecture.json").read_text())["derived_by"]["bracket"]
    alone, largest = result.found["reinforce"][0], result.controls["largest"][0]
    names = [tuple(searches[0].benchmark.space.architecture(entry["choices"]).choice_names) for entry in bracket]
    assert names == [alone.architecture, largest.architecture] and alone.architecture != largest.architecture
    won = min(bracket, key=lambda entry: entry["losses"][0])
    assert list(found.choices) == won["choices"] and one.judge(3, found).env_steps == 256 + 2 * 32
    assert one.search(3, tmp_path, QUIET).choices == found.choices
