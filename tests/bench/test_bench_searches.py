"""Queries and searches on tables whose scores the tests write: each figure against a plain loop over all networks."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from cosearch.bench.benchmark import Benchmark
from cosearch.bench.budgets import budgets, budgets_page
from cosearch.bench.leaderboard import leaderboard_page, standings
from cosearch.bench.searches import BRACKET, BRACKETED, PRIOR, Search, run_search, runnable
from cosearch.bench.table import table_path, write_table
from cosearch.cli.app import main
from cosearch.planning.builtins import load_builtins
from cosearch.strategies.base import STRATEGIES
from latency_tables.devices import find_table
from latency_tables.errors import InfeasibleTargetError, RequestError, UnknownNameError
from tests.support.bench_table import TASK, made_table

DEVICE = "pixel-3"
SIZES = (2, 3, 3, 5, 2, 3)
CHOICES = list(itertools.product(*map(range, SIZES)))
WORTH = [np.random.default_rng(point).permutation(size).astype(float) for point, size in enumerate(SIZES)]


def additive(number, seed):
    """A score that is a sum over the choices, without noise."""
    return float(sum(row[c] for row, c in zip(WORTH, CHOICES[number])))


def noisy(number, seed):
    return additive(number, seed) + float(np.random.default_rng([number, seed]).normal(0.0, 0.7))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    load_builtins()
    folder = tmp_path_factory.mktemp("tables")
    write_table(made_table(noisy), table_path(TASK, folder))
    return Benchmark(TASK, folder), folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exact")
    write_table(made_table(additive), table_path(TASK, folder))
    return Benchmark(TASK, folder)


def inside(benchmark, target_s):
    """(number, latency, multiply-accumulates) of the networks within a target, by a loop."""
    table, found = find_table(DEVICE), []
    for number, choices in enumerate(CHOICES):
        ops = benchmark.space.architecture(choices).ops()
        latency_s = table.overhead_s + table.scale * sum(table.latency_s(op) for op in ops)
        if latency_s <= target_s:
            found.append((number, latency_s, sum(op.macs for op in ops)))
    return found


def test_a_strategy_that_scores_with_shared_weights_is_sent_to_the_searches_of_the_product(exact):
    load_builtins()
    with pytest.raises(RequestError, match=r"one-shot.*shared weights, which no table has: `cosearch bench search`"):
        run_search(exact, "one-shot", DEVICE)
    assert "one-shot" not in runnable() and "l2nas" in runnable()


def test_a_query_is_the_tables_entry(bench):
    benchmark, _ = bench
    for number in (0, 77, 539):
        architecture = benchmark.space.architecture(CHOICES[number])
        scores = [noisy(number, seed) for seed in range(3)]
        assert benchmark.number(architecture) == number and benchmark.architectures[number] == architecture
        assert [benchmark.query(architecture, seed) for seed in range(3)] == pytest.approx(scores)
        assert benchmark.query(architecture) == pytest.approx(np.mean(scores))
        assert benchmark.query(architecture, 1, 8192) == pytest.approx(scores[1] / 3)
        assert benchmark.curve(architecture, 2)[-1] == (24576, pytest.approx(scores[2]))
    with pytest.raises(RequestError, match="not 4095"):
        benchmark.query(architecture, 0, 4095)
    with pytest.raises(RequestError, match="train seeds 0, 1, 2, not 3"):
        benchmark.query(architecture, 3)


def test_latency_feasible_and_optimum_are_those_of_a_loop(bench):
    benchmark, _ = bench
    target_s = 80e-6
    expected = inside(benchmark, target_s)
    assert 50 < len(expected) < 500
    assert benchmark.feasible(DEVICE, target_s).tolist() == [number for number, _, _ in expected]
    best = max((number for number, _, _ in expected), key=lambda n: np.mean([noisy(n, seed) for seed in range(3)]))
    optimum = benchmark.optimum(DEVICE, target_s)
    assert optimum.architecture.choices == CHOICES[best] and optimum.feasible == len(expected)
    assert optimum.latency_s == pytest.approx(next(latency for n, latency, _ in expected if n == best))
    half = inside(benchmark, benchmark.default_target_s(DEVICE))
    assert len(half) == pytest.approx(270, abs=3)  # networks of one latency lie on both sides
    with pytest.raises(InfeasibleTargetError, match="the fastest takes"):
        benchmark.feasible(DEVICE, 1e-6)
    with pytest.raises(UnknownNameError):
        benchmark.latencies_s("pixel-33")


def test_an_outcome_is_judged_against_all_that_could_be_found(bench):
    benchmark, _ = bench
    target_s = 80e-6
    expected = inside(benchmark, target_s)
    means = {number: np.mean([noisy(number, seed) for seed in range(3)]) for number, _, _ in expected}
    for name in runnable():
        outcome = run_search(benchmark, name, DEVICE, target_s=target_s, seed=3, queries=6)
        number = next(n for n in means if benchmark.architectures[n].choice_names == outcome.architecture)
        assert outcome.score == pytest.approx(means[number]) and outcome.latency_s <= target_s
        assert outcome.regret == pytest.approx(max(means.values()) - means[number])
        assert outcome.rank == 1 + sum(value > means[number] for value in means.values())
        assert outcome.percentile == pytest.approx(100 * (len(means) - outcome.rank) / (len(means) - 1))
        asked = 0 if name.startswith("largest") else 6
        assert (outcome.queries, outcome.env_steps, outcome.feasible) == (asked, asked * 24576, len(means))
        assert outcome == run_search(benchmark, name, DEVICE, target_s=target_s, seed=3, queries=6)
    largest = run_search(benchmark, "largest", DEVICE, target_s=target_s)
    most = max(macs for _, _, macs in expected)
    assert largest.architecture in [benchmark.architectures[n].choice_names for n, _, macs in expected if macs == most]
    built = {benchmark.architectures[n].choice_names: benchmark.architectures[n].ops() for n, _, _ in expected}
    weights = {names: sum(op.params for op in ops) for names, ops in built.items()}
    both = {names: weights[names] * sum(op.macs for op in ops) for names, ops in built.items()}
    for name, sizes in (("largest-weights", weights), ("largest-both", both)):
        assert sizes[run_search(benchmark, name, DEVICE, target_s=target_s).architecture] == max(sizes.values())
        assert run_search(benchmark, name, "x86-epyc").architecture != run_search(benchmark, "largest", "x86-epyc").architecture
    drawn = [run_search(benchmark, name, DEVICE, target_s=target_s, seed=1, queries=1) for name in ("predictor", PRIOR)]
    assert both[drawn[0].architecture] < both[drawn[1].architecture]  # the larger ones of many draws


def test_a_bracket_keeps_the_best_of_the_regressions_first_and_the_largest(exact):
    target_s = exact.default_target_s(DEVICE)
    found = {
        name: run_search(exact, name, DEVICE, target_s=target_s, queries=12, seed=2) for name in ("reinforce-bracket", "largest")
    }
    assert found["reinforce-bracket"].score >= found["largest"].score
    assert found["reinforce-bracket"].queries == 12
    with pytest.raises(RequestError, match="more than 4 queries"):
        run_search(exact, "reinforce-bracket", DEVICE, target_s=target_s, queries=4)


def test_a_bracket_asks_for_both_free_rules(exact, monkeypatch):
    rules = [run_search(exact, name, "x86-epyc").architecture for name in ("largest", "largest-both")]
    asked, plain = [], Search.ask_score
    monkeypatch.setattr(Search, "ask_score", lambda self, one: asked.append(one.choice_names) or plain(self, one))
    found = run_search(exact, "reinforce-bracket", "x86-epyc", queries=7)
    assert len(asked) == 7 and asked[5:] == rules and len(set(asked[3:])) == 4 and found.architecture in asked[3:]


@pytest.mark.slow  # searches of 300 queries
def test_searches_with_many_queries_find_good_networks_and_few_do_not(exact):
    target_s = exact.default_target_s(DEVICE)
    quick = ("ridge", "evolution", "local-search", "predictor", "reinforce-bracket", "reinforce-logits", "reinforce")
    ranks = {name: run_search(exact, name, DEVICE, target_s=target_s, queries=300).rank for name in quick}
    few = [run_search(exact, "random", DEVICE, target_s=target_s, queries=2, seed=seed).rank for seed in range(5)]
    assert ranks["ridge"] <= 2 and ranks["evolution"] <= 3 and ranks["local-search"] <= 3
    assert ranks["predictor"] == 1 and ranks["reinforce-bracket"] <= 2
    assert ranks["reinforce-logits"] <= 30 and ranks["reinforce"] <= 2 and np.mean(few) > 30


def test_a_search_on_a_partial_table_asks_for_finished_networks_alone(tmp_path):
    write_table(made_table(additive, range(0, 540, 5)), table_path(TASK, tmp_path))
    benchmark = Benchmark(TASK, tmp_path)
    for name in runnable():
        outcome = run_search(benchmark, name, DEVICE, target_s=1.0, queries=6)
        assert outcome.partial == "partial: 108 of 540 networks" and outcome.feasible == 108
    with pytest.raises(RequestError, match="partial: 108 of 540"):
        benchmark.query(benchmark.architectures[1])


def test_a_failed_training_counts_as_the_worst_of_all(tmp_path):
    write_table(made_table(lambda n, seed: None if (n, seed) == (9, 1) else additive(n, seed)), table_path(TASK, tmp_path))
    benchmark = Benchmark(TASK, tmp_path)
    least = min(additive(n, 0) for n in range(540))
    assert benchmark.seed_scores[9].tolist() == [additive(9, 0), least, additive(9, 2)]
    assert benchmark.score(benchmark.architectures[9]) == pytest.approx((2 * additive(9, 0) + least) / 3)


def test_a_failed_training_is_shown_as_failed_and_is_in_no_mean(tmp_path, capsys):
    """A failed training has a curve of nulls, or in a packed table none."""
    failed = {(9, 1), (10, 0), (10, 1), (10, 2)}
    made = made_table(lambda n, seed: None if (n, seed) in failed else noisy(n, seed))
    packed = dict(made.results)
    packed[10] = tuple(replace(own, curve=()) for own in packed[10])
    write_table(replace(made, results=packed), table_path(TASK, tmp_path))
    benchmark = Benchmark(TASK, tmp_path)
    some, none = benchmark.architectures[9], benchmark.architectures[10]
    mean = (noisy(9, 0) + noisy(9, 2)) / 2
    assert benchmark.query(some, 1) is None and benchmark.query(some) == pytest.approx(mean)
    assert benchmark.query(some, step=8192) == pytest.approx(mean / 3) and benchmark.query(some, 1, 8192) is None
    assert benchmark.failed_seeds(some) == (1,) and benchmark.failed_seeds(benchmark.architectures[8]) == ()
    assert benchmark.query(none) is None and benchmark.query(none, step=24576) is None
    assert main(["bench", "query", *map(str, some.choices), "--data", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["score"] == pytest.approx(mean) and told["failed_seeds"] == [1] and told["seed_scores"]["1"] is None
    assert main(["bench", "query", *map(str, some.choices), "--data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    by_seed = f"0: {noisy(9, 0):.2f}, 1: failed, 2: {noisy(9, 2):.2f}"
    assert f"score {mean:.2f} (1 of 3 train seeds failed: mean of the others); by train seed: {by_seed}" in text
    assert f"score after steps, without train seed 1, which failed: 4,096: {mean / 6:.2f}" in text
    assert main(["bench", "query", *map(str, none.choices), "--data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "score none (3 of 3 train seeds failed); by train seed: 0: failed, 1: failed, 2: failed" in text


@pytest.mark.parametrize("numbers, seeds", [([0], (0, 1, 2)), ([0, 1], (0,))])
def test_figures_that_few_results_do_not_define_are_none(numbers, seeds, tmp_path, capsys, monkeypatch):
    """A correlation of one network or of equal scores, a deviation of one train seed."""
    load_builtins()
    few = [info for info in STRATEGIES.entries() if info.name in ("random", "reinforce", "predictor")]
    monkeypatch.setattr(STRATEGIES, "entries", lambda: few)
    write_table(made_table(lambda number, seed: 1.0 + seed, numbers, seeds), table_path(TASK, tmp_path))
    words = ["bench", "leaderboard", "--device", DEVICE, "--seeds", "2", "--queries", "2", "--data", str(tmp_path)]
    assert main([*words, "--json", "--out", str(tmp_path / "page.md")]) == 0
    (board,) = json.loads(capsys.readouterr().out)["boards"]
    assert board["macs_correlation"] is None and (board["seed_deviation"] is None) == (len(seeds) == 1)
    page = (tmp_path / "page.md").read_text()
    assert "multiply-accumulates and score not defined." in page
    assert ("between train seeds not defined;" in page) == (len(seeds) == 1)


def test_ridge_finds_a_network_that_it_never_asked_for(exact):
    """Scores are sums over the choices: few random networks tell all the others."""
    found = [run_search(exact, "ridge", DEVICE, queries=40, seed=seed).rank for seed in range(4)]
    drawn = [run_search(exact, "random", DEVICE, queries=40, seed=seed).rank for seed in range(4)]
    assert np.mean(found) < 2 < np.mean(drawn)


def test_a_regression_on_equal_scores_has_nothing_to_say(tmp_path):
    write_table(made_table(lambda number, seed: 1.0), table_path(TASK, tmp_path))
    for name in ("ridge", "reinforce"):
        assert run_search(Benchmark(TASK, tmp_path), name, DEVICE, queries=5).regret == 0.0


def test_what_cannot_run_on_a_table_is_refused(bench):
    benchmark, _ = bench
    with pytest.raises(RequestError, match="shared weights"):
        run_search(benchmark, "a3cs", DEVICE)
    with pytest.raises(UnknownNameError, match="evolution"):
        run_search(benchmark, "evolutoin", DEVICE)
    with pytest.raises(RequestError, match="at least one query"):
        run_search(benchmark, "random", DEVICE, queries=0)


@pytest.mark.slow
def test_the_page_has_a_row_a_strategy_with_the_mean_of_its_searches(bench):
    benchmark, folder = bench
    result = standings(folder, [DEVICE], range(3), queries=6)
    (board,) = result.boards
    page = leaderboard_page(result)
    assert {row.strategy for row in board.standings} == set(runnable())
    for row in board.standings:
        found = [run_search(benchmark, row.strategy, DEVICE, seed=seed, queries=6).regret for seed in range(3)]
        assert row.regret == pytest.approx(np.mean(found)) and f"| {row.strategy} | {np.mean(found):.2f}" in page
    assert [row.regret for row in board.standings] == sorted(row.regret for row in board.standings)
    assert "PARTIAL" not in page


def test_a_page_of_few_queries_leaves_out_what_needs_more_and_says_so(bench, capsys, monkeypatch):
    _, folder = bench
    few = [info for info in STRATEGIES.entries() if info.name in ("random", "reinforce", "predictor")]
    monkeypatch.setattr(STRATEGIES, "entries", lambda: few)
    for queries in (BRACKET, BRACKET + 1):
        words = ["--device", DEVICE, "--seeds", "2", "--queries", str(queries), "--data", str(folder)]
        assert main(["bench", "leaderboard", *words]) == 0
        page = capsys.readouterr().out
        rows = {name for name in runnable() if f"| {name} |" in page}
        assert set(runnable()) - rows == ({BRACKETED} if queries == BRACKET else set())
        assert ("`reinforce-bracket` is left out: its bracket alone takes 4 queries." in page) == (queries == BRACKET)


@pytest.mark.slow
def test_regret_against_budget_is_that_of_searches_with_each_budget(bench, capsys):
    benchmark, folder = bench
    board = budgets(benchmark, DEVICE, range(2), (2, 6))
    assert {row.strategy for row in board.rows} == set(runnable())
    for row in board.rows:
        found = [run_search(benchmark, row.strategy, DEVICE, seed=seed, queries=row.queries).regret for seed in range(2)]
        assert row.regret == pytest.approx(np.mean(found)) and row.env_steps == row.queries * 24576
    assert [row.queries for row in board.rows if row.strategy == "reinforce-bracket"] == [6]  # of four: more than 4 queries
    page = budgets_page([board])
    assert "2 queries, 49,152 steps" in page and all(f"| {name} |" in page for name in runnable())
    words = ["--device", DEVICE, "--seeds", "2", "--queries", "6", "--queries", "2", "--data", str(folder)]
    assert main(["bench", "budgets", *words]) == 0
    assert capsys.readouterr().out.strip() == page.strip()


@pytest.mark.parametrize("verb", ["info", "leaderboard", "budgets", "transfer"])
def test_a_folder_without_tables_is_refused_and_no_page_is_written(verb, tmp_path, capsys):
    out = [] if verb == "info" else ["--out", str(tmp_path / "page.md")]
    assert main(["bench", verb, "--data", str(tmp_path / "wrong"), *out]) == 2
    assert "wrong has no table of the benchmark: `cosearch bench extend" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", [[], ["--task", TASK]])
def test_a_folder_without_results_is_not_packed_and_is_not_made(task, tmp_path, capsys):
    assert main(["bench", "pack", str(tmp_path / "wrong"), "--out", str(tmp_path / "tables"), *task]) == 2
    assert "`cosearch bench extend --out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_commands_print_what_scripts_rely_on(bench, capsys):
    benchmark, folder = bench
    assert main(["bench", "info", "--data", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["architectures"], told["tasks"], told["seeds"]) == (540, [TASK], [0, 1, 2]) and DEVICE in told["devices"]
    words = ["bench", "run", "--strategy", "random", "--task", TASK, "--device", DEVICE, "--seed", "1", "--data", str(folder)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    again = run_search(benchmark, "random", DEVICE, seed=1)
    assert (told["regret"], told["rank"], told["queries"], told["env_steps"]) == (again.regret, again.rank, 20, 20 * 24576)
    assert main(["bench", "query", *map(str, CHOICES[77]), "--data", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(np.mean([noisy(77, seed) for seed in range(3)]))
    assert main(["bench", "query", *map(str, CHOICES[77]), "--data", str(folder), "--device", DEVICE]) == 0
    text = capsys.readouterr().out
    architecture = benchmark.space.architecture(CHOICES[77])
    latency = f"{benchmark.latency_s(architecture, DEVICE) * 1e3:.4g} ms on {DEVICE}"
    assert f"0: {noisy(77, 0):.2f}" in text and latency in text and "/".join(architecture.choice_names) in text
    assert "{" not in text  # words, not a dictionary
    assert main([*words[:3], "a3cs", *words[4:]]) == 2 and "shared weights" in capsys.readouterr().err
