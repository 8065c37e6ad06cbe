"""Comparisons: which runs are planned, what is refused, and figures and pages from run folders that nothing was trained for."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import old_run
import pytest
from made_comparison import SUMMARY, WORDS, made, plan

from cosearch.cli.app import main
from cosearch.compare.data import ALL, comparison
from cosearch.compare.page import write_comparison
from cosearch.compare.plots import colours
from cosearch.compare.runs import RECORD, begin, read_comparison
from cosearch.planning.budget import run_steps
from cosearch.planning.plan import make_plan
from cosearch.record.json_record import to_json
from cosearch.record.rundir import RunDir
from cosearch.record.workers import Attempt, Session, WorkersRecord
from latency_tables.errors import ConfigError, RunFolderError, UnknownNameError


def test_random_search_comes_first_and_is_every_other_runs_control(tmp_path):
    runs = plan(tmp_path, ("a3cs", "evolution", "a3cs"))
    assert [run.name for run in runs] == [
        f"{name}-s{seed}" for name in ("random", "largest", "a3cs", "evolution") for seed in (0, 1)
    ]
    for run in runs:
        assert run.config.seed == run.seed and run.config.strategy.name == run.strategy and run.config.threads == 1
        assert run.config.control == ("" if run.strategy == "random" else str(tmp_path / f"random-s{run.seed}"))


def test_several_tasks_are_in_the_names(tmp_path):
    runs = plan(tmp_path, envs=("minatar:breakout", "minatar:asterix"), seeds=[3])
    assert [run.name for run in runs] == [
        "minatar-breakout-random-s3",
        "minatar-asterix-random-s3",
        "minatar-breakout-largest-s3",
        "minatar-asterix-largest-s3",
        "minatar-breakout-a3cs-s3",
        "minatar-asterix-a3cs-s3",
    ]
    assert runs[5].config.control.endswith("minatar-asterix-random-s3")


def test_runs_on_an_accelerator_have_the_target_of_the_first(tmp_path):
    words = (*WORDS, "space.values.hidden=64", "objective.latency_ratio=0.5", "accel.final_evaluations=560")
    runs = plan(tmp_path, seeds=[1, 2], words=words, options={"device": "zc706"})
    assert {run.config.objective.latency_target_s for run in runs} == {make_plan(runs[0].config).constraints[0].value}
    own = make_plan(replace(runs[1].config, objective=replace(runs[1].config.objective, latency_target_s=None)))
    assert own.constraints[0].value != runs[1].config.objective.latency_target_s  # what it would have had by itself
    assert all(run.config.objective.latency_target_s is None for run in plan(tmp_path))  # a table gives one to all


def test_words_reach_the_strategies_that_use_them(tmp_path):
    words = (
        *WORDS,
        "strategy.temperature_end=0.5",
        "strategy.values.population=3",
        "evolution:strategy.candidates=5",
        "rl.lr=1e-4",
        "threads=2",
    )
    runs = {run.strategy: run.config for run in plan(tmp_path, ("a3cs", "reinforce", "evolution"), [0], words=words)}
    assert runs["a3cs"].strategy.temperature_end == 0.5 and runs["reinforce"].strategy.temperature_end == 0.3
    assert {name: config.strategy.values for name, config in runs.items()} == {
        "random": {},
        "largest": {},
        "a3cs": {},
        "reinforce": {},
        "evolution": {"population": 3},
    }
    assert {name: config.strategy.candidates for name, config in runs.items()} == {
        "random": 4,
        "largest": 4,
        "a3cs": 4,
        "reinforce": 4,
        "evolution": 5,
    }
    assert all(config.rl.lr == 1e-4 and config.threads == 2 for config in runs.values())


def test_a_variant_has_a_label_and_words_of_its_own(tmp_path):
    words = (*WORDS, "strategy.lr=0.5", "second:strategy.values.order=2", "alone:rl.lam=0.5")
    runs = {run.strategy: run for run in plan(tmp_path, ("darts", "second=darts", "alone=a3cs"), [0], words=words)}
    assert {label: run.config.strategy.name for label, run in runs.items()} == {
        "random": "random",
        "largest": "largest",
        "darts": "darts",
        "second": "darts",
        "alone": "a3cs",
    }
    assert runs["second"].name == "second-s0" and runs["second"].config.control.endswith("random-s0")
    assert runs["second"].config.strategy.values == {"order": 2} and runs["darts"].config.strategy.values == {}
    assert runs["alone"].config.rl.lam == 0.5 != runs["darts"].config.rl.lam
    assert runs["second"].config.strategy.lr == runs["alone"].config.strategy.lr == 0.5 != runs["random"].config.strategy.lr
    assert runs["second"].own == ("strategy.values.order",) and runs["alone"].own == ("rl.lam",)
    begin(tmp_path / "c", list(runs.values()), "variants")
    assert {run.strategy: run.own for run in read_comparison(tmp_path / "c")} == {name: run.own for name, run in runs.items()}


def test_a_word_of_its_own_holds_before_and_after_one_for_all(tmp_path):
    for words in (("a3cs:rl.lr=1e-3", "rl.lr=1e-4"), ("rl.lr=1e-4", "a3cs:rl.lr=1e-3")):
        runs = {run.strategy: run.config for run in plan(tmp_path, ("a3cs",), [0], words=(*WORDS, *words))}
        assert runs["a3cs"].rl.lr == 1e-3 and runs["random"].rl.lr == runs["largest"].rl.lr == 1e-4


def test_a_word_for_all_goes_to_the_runs_in_which_it_has_an_effect(tmp_path):
    words = (*WORDS, "a3cs:strategy.target_form=penalty", "objective.dual_lr=0.5", "strategy.candidates=3", "rl.lam=0.5")
    runs = {run.strategy: run.config for run in plan(tmp_path, ("a3cs",), [0], words=words)}
    assert runs["a3cs"].objective.dual_lr == 0.5 != runs["random"].objective.dual_lr
    assert runs["random"].strategy.candidates == 3 != runs["a3cs"].strategy.candidates
    assert runs["random"].rl.lam == runs["a3cs"].rl.lam == 0.5
    with pytest.raises(ConfigError, match=r"objective.dual_lr=0.5 has no effect with any of random, largest, evolution"):
        plan(tmp_path, ("evolution",), [0], words=(*WORDS, "objective.dual_lr=0.5"))


@pytest.mark.parametrize(
    "strategies, words, error, text",
    [
        (["a3cs=reinforce"], [], ConfigError, "the label 'a3cs' is taken"),
        (["mine=reinforce", "mine=a3cs"], [], ConfigError, "the label 'mine' is taken"),
        (["random=a3cs"], [], ConfigError, "the label 'random' is taken"),
        (["largest=a3cs"], [], ConfigError, "the label 'largest' is taken"),
        (["a/b=a3cs"], [], ConfigError, "letters, digits"),
        (["mine=a3sc"], [], UnknownNameError, "Did you mean 'a3cs'"),
        (["a3cs"], ["strategy.values.population=3"], ConfigError, "population=3 has no effect with any of random, largest, a3cs"),
        (["a3sc"], [], UnknownNameError, "Did you mean 'a3cs'"),
        (["a3cs"], ["evolution:rl.lr=1"], ConfigError, "evolution:rl"),
        (
            ["evolution"],
            ["evolution:env.num_envs=32", "evolution:budget.search_steps=20500"],
            ConfigError,
            "equal environment steps",
        ),
    ],
)
def test_what_cannot_be_is_refused(strategies, words, error, text, tmp_path):
    with pytest.raises(error, match=text):
        plan(tmp_path, strategies, words=[*WORDS, *words])


def test_keys_of_a_file_that_the_comparison_sets_itself_are_named(tmp_path):
    file, told = tmp_path / "mine.toml", []
    file.write_text('seed = 7\ncontrol = "runs/one"\n\n[strategy]\nname = "reinforce"\n\n[rl]\nlr = 0.5\n')
    runs = plan(tmp_path, ("evolution",), file=file, tell=told.append)
    assert {run.strategy for run in runs} == {"random", "largest", "evolution"}
    assert {(run.config.seed, run.config.rl.lr) for run in runs} == {(0, 0.5), (1, 0.5)}
    parts = [re.match(r"(.*): (\S+) has no effect in a comparison: it is set by (.*)", line).groups() for line in told]
    assert [part[:2] for part in parts] == [(str(file), key) for key in ("control", "seed", "strategy.name")]
    assert parts[1][2] == "--seeds" and parts[2][2] == "--strategies"
    plan(tmp_path, ("evolution",), tell=told.append)
    assert len(told) == 3


def test_what_a_run_would_trip_over_is_found_before_any_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"strategy\.active_paths=2 has no effect with strategy 'reinforce'"):
        begin(tmp_path / "c", plan(tmp_path / "c", ["reinforce"], words=[*WORDS, "reinforce:strategy.active_paths=2"]), "")
    assert not (tmp_path / "c").exists()


def test_a_comparison_may_grow_and_may_not_change(tmp_path):
    folder = tmp_path / "c"
    begin(folder, plan(folder, seeds=[0]), "first")
    begin(folder, plan(folder, ("evolution",), seeds=[1]), "second")
    assert {run.name for run in read_comparison(folder)} == {
        f"{name}-s{seed}"
        for name, seed in (("random", 0), ("largest", 0), ("a3cs", 0), ("random", 1), ("largest", 1), ("evolution", 1))
    }
    with pytest.raises(RunFolderError, match=r"random-s0 has other values \(rl.lr 0.002 there, 0.5 now\)"):
        begin(folder, plan(folder, seeds=[0], words=(*WORDS, "rl.lr=0.5")), "third")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunFolderError, match=r"holds no compare\.json"):
        begin(tmp_path / "other", plan(tmp_path / "other"), "")


SCORES = {"random": [1.0, 2.0, 3.0, 4.0, 5.0], "a3cs": [6.0, 3.0, 4.0, 8.0, 3.5]}


def test_the_figures_are_those_of_the_folders(tmp_path):
    result = comparison(made(tmp_path / "c", SCORES, latency={"a3cs": 5e-5})).to_json()
    random, a3cs = result["strategies"]
    assert random["strategy"] == "random" and random["improvement"] is None and random["iqm"]["value"] == 3.0
    assert a3cs["iqm"]["value"] == pytest.approx(np.mean(sorted(SCORES["a3cs"])[1:4]))
    better = [float(a > r) + 0.5 * (a == r) for a in SCORES["a3cs"] for r in SCORES["random"]]
    assert a3cs["improvement"]["value"] == pytest.approx(np.mean(better))
    # box: (2e-4 s - 5e-5 s) times (8 - 1); each run's own corner above the lowest score, 1: random at 1e-4 s, a3cs at 5e-5 s
    assert random["hypervolume"] == pytest.approx(1e-4 * np.mean([0, 1, 2, 3, 4]) / (1.5e-4 * 7))
    assert a3cs["hypervolume"] == pytest.approx(np.mean([5, 2, 3, 7, 2.5]) / 7)
    assert a3cs["env_steps"] == 20480 and a3cs["targets_met"] == 5 and result["unfinished"] == []
    assert {run["status"] for run in result["runs"]} == {"finished"} and len(result["runs"]) == 10


def test_the_largest_network_is_a_control_beside_random_search(tmp_path):
    scores = {"random": [1.0, 2.0, 3.0], "largest": [4.0, 4.0, 5.0], "a3cs": [4.0, 6.0, 2.5]}
    folder = made(tmp_path / "c", scores)
    rows = {row["strategy"]: row for row in write_comparison(folder)[0].to_json()["strategies"]}
    assert rows["a3cs"]["improvement"]["value"] == pytest.approx((3 + 3 + 2) / 9)
    assert rows["a3cs"]["improvement_largest"]["value"] == pytest.approx((0.5 + 0.5 + 3) / 9)
    assert rows["random"]["improvement"] is None and rows["random"]["improvement_largest"]["value"] == 0.0
    assert rows["largest"]["improvement_largest"] is None and rows["largest"]["improvement"]["value"] == 1.0
    assert "| better than random | better than largest |" in (folder / "compare.md").read_text()
    old = comparison(
        made(tmp_path / "old", {name: scores[name] for name in ("random", "a3cs")})
    )  # before `largest` was a control
    assert [row.improvement_largest for row in old.strategies] == [None, None]


def test_what_is_not_finished_is_named_and_left_out(tmp_path):
    result = comparison(made(tmp_path / "c", SCORES, left_out=["a3cs-s0", "random-s4"])).to_json()
    assert result["unfinished"] == ["random-s4", "a3cs-s0"]
    assert [row["runs"] for row in result["strategies"]] == [4, 4]
    assert [run["status"] for run in result["runs"] if run["name"] in ("random-s4", "a3cs-s0")] == ["missing", "missing"]


def test_searches_whose_shared_weights_had_hardly_learned_are_named(tmp_path):
    folder = made(tmp_path / "c", SCORES)
    for name, end in (("a3cs-s1", 0.9), ("a3cs-s2", 0.1)):
        lines = [{"stage": "search", "step": step, "distill_actor": 1.0 if step == 1 else end} for step in range(1, 12)]
        with (folder / name / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.writelines(json.dumps({"wall_s": 1.0, **line}) + "\n" for line in lines)
    result, _ = write_comparison(folder)
    assert result.to_json()["unlearned"] == ["a3cs-s1"]
    for page in ("compare.md", "compare.html"):
        assert "ranking of networks says little: a3cs-s1." in (folder / page).read_text(encoding="utf-8")


def test_without_a_single_finished_run_there_is_an_empty_table(tmp_path):
    every = [f"{name}-s{seed}" for name in SCORES for seed in range(5)]
    result, files = write_comparison(made(tmp_path / "c", SCORES, left_out=every))
    assert result.strategies == () and len(result.unfinished) == 10 and all(file.is_file() for file in files)


def test_another_teacher_cannot_be_compared_unless_it_is_what_a_variant_is_for(tmp_path):
    for words, refused in ((WORDS, True), ((*WORDS, "alone:distill.teacher=auto"), False)):
        folder = tmp_path / str(refused)
        runs = plan(folder, ("alone=a3cs",), [0], words=words)
        begin(folder, runs, "made up")
        for run, teacher in zip(runs, ("one", "one", "other"), strict=True):
            record = old_run.content("run.json", teacher={"name": teacher, "network": "IMPALA-CNN"})
            one = RunDir.create(folder, run.name, record)
            one.write_json("summary.json", SUMMARY)
        if refused:
            with pytest.raises(ConfigError, match="their teacher differs, random-s0 has one, alone-s0 has other"):
                comparison(folder)
        else:
            assert [row.strategy for row in comparison(folder).strategies] == ["random", "largest", "alone"]


def test_runs_of_version_0_1_0_are_compared(tmp_path):
    folder = tmp_path / "c"
    runs = plan(folder, seeds=[0])
    begin(folder, runs, "made up")
    for run in runs:
        old_run.copy_to(folder / run.name)
    result, files = write_comparison(folder)
    assert [(row.strategy, row.runs, row.targets_met) for row in result.strategies] == [
        (name, 1, 1) for name in ("random", "largest", "a3cs")
    ]
    assert result.strategies[2].iqm.value == 11.8046875 and result.strategies[2].iqm.ci95 is None
    assert "| a3cs | 1 | 11.80, no interval (1 run) |" in (folder / "compare.md").read_text()
    assert {"scatter.png", "curves.png", "intervals.png"} <= {file.name for file in files}


def test_unequal_planned_steps_cannot_be_compared(tmp_path):
    folder = made(tmp_path / "c", SCORES)
    record = json.loads((folder / RECORD).read_text())
    for run in record["runs"]:
        run["config"]["budget"]["search_steps"] *= 2 if run["strategy"] == "a3cs" else 1
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="environment steps differs, random-s0 has 20480, a3cs-s0 has 40960"):
        comparison(folder)


def test_runs_that_took_other_steps_than_planned_are_compared_and_named(tmp_path):
    result, _ = write_comparison(made(tmp_path / "c", SCORES, steps={"random": 16384, "a3cs": 20480}))
    assert result.spent_otherwise == {f"random-s{seed}": 16384 for seed in range(5)}
    assert {row.env_steps for row in result.strategies} == {20480}
    for page in ("compare.md", "compare.html"):
        assert "failed leaves some out): random-s0 16,384, random-s1" in (tmp_path / "c" / page).read_text(encoding="utf-8")
    assert write_comparison(made(tmp_path / "d", SCORES))[0].spent_otherwise == {}


def test_several_tasks_are_put_on_one_scale(tmp_path):
    scores = {"random": [(0.0, 100.0), (2.0, 300.0)], "a3cs": [(4.0, 500.0), (1.0, 200.0)]}
    result = comparison(made(tmp_path / "c", scores, envs=("minatar:breakout", "minatar:asterix"))).to_json()
    everything = {row["strategy"]: row for row in result["strategies"] if row["env"] == ALL}
    # breakout: 0..4, asterix: 100..500
    assert everything["random"]["iqm"]["value"] == pytest.approx(np.mean([0.0, 0.5]))  # of 0, 0.5, 0, 0.5 the middle two
    assert everything["a3cs"]["score_mean"] == pytest.approx(np.mean([1.0, 0.25, 1.0, 0.25]))
    assert everything["a3cs"]["improvement"]["value"] == pytest.approx(0.75)


def test_the_pages_say_how_the_work_went_where_it_was_recorded(tmp_path):
    folder = made(tmp_path / "c", {"random": [1.0, 2.0], "largest": [2.0, 3.0]}, left_out=("largest-s1",))
    write_comparison(folder)
    assert "How the work went" not in (folder / "compare.md").read_text() + (folder / "compare.html").read_text()
    attempts = (
        Attempt(name="random-s0", where="process 7", began_s=10.0, ended_s=40.0, end="lost", why="<b>killed</b>"),
        Attempt(name="random-s0", where="process 8", began_s=40.0, ended_s=110.0, end="finished"),
        Attempt(name="largest-s1", where="process 8", began_s=110.0, ended_s=130.0, end="under way"),
    )
    record = WorkersRecord(sessions=(Session(began_s=10.0, ended_s=130.0, attempts=attempts),))
    (folder / WorkersRecord.FILE).write_text(json.dumps(to_json(record)))
    write_comparison(folder)
    text, page = (folder / "compare.md").read_text(), (folder / "compare.html").read_text()
    assert "| random-s0 | process 7 | 30 s | lost: \\<b>killed\\</b> |" in text and "lost: &lt;b&gt;killed&lt;/b&gt;" in page
    for shown in (text, page):  # each run took 60 s by its own clock
        assert "Processes worked for 1 min 40 s on finished runs; 40 s of it is in none of them" in shown
        assert "at most 1 at once, and these were busy for 100 % of the time" in shown


def test_the_pages_hold_the_figures_and_load_nothing(tmp_path):
    folder = made(tmp_path / "c", SCORES)
    result = write_comparison(folder)[0].to_json()
    text, page = (folder / "compare.md").read_text(), (folder / "compare.html").read_text()
    row = next(row for row in result["strategies"] if row["strategy"] == "a3cs")
    figure = f"{row['iqm']['value']:.2f} [{row['iqm']['ci95'][0]:.2f}, {row['iqm']['ci95'][1]:.2f}]"
    assert f"| a3cs | 5 | {figure} |" in text and f"<td>{figure}</td>" in page
    assert not re.search(r"(src|href)=\"?(http|//)", page) and page.count("data:image/png;base64,") == 3
    for name in re.findall(r"\]\((.*?\.png)\)", text):
        assert (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads((folder / "compare-results.json").read_text())["strategies"] == result["strategies"]


def test_the_verb_regenerates_from_the_folders_alone(tmp_path, capsys):
    folder = made(tmp_path / "c", SCORES, left_out=["a3cs-s1"])
    before = set(folder.iterdir())
    assert main(["compare", "--from", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["strategy"] for row in result["strategies"]] == ["random", "a3cs"] and result["unfinished"] == ["a3cs-s1"]
    assert {path.name for path in set(folder.iterdir()) - before} == {
        "compare-results.json",
        "compare.md",
        "compare.html",
        "scatter.png",
        "curves.png",
        "intervals.png",
    }
    assert main(["compare", "--from", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "a3cs" in out and "Not finished" in out and max(map(len, out.splitlines())) <= 120
    assert main(["compare", "--from", str(tmp_path)]) == 2
    assert RECORD in capsys.readouterr().err


def test_the_documented_commands_are_comparisons_that_can_be_made(tmp_path):
    docs = Path(__file__).resolve().parents[2] / "docs"
    text = "".join((docs / part / "strategies.md").read_text(encoding="utf-8") for part in ("guide", "evidence"))
    lines = [line for line in text.splitlines() if line.startswith("python -m cosearch compare --strategies")]
    for line, count in zip(lines, (35, 25, 25), strict=True):
        words = iter(shlex.split(line)[4:])
        options, values = {}, []
        for word in words:
            if word.startswith("--"):
                options[word] = next(words)
            else:
                values.append(word)
        folder = tmp_path / options["--name"]
        runs = plan(folder, options["--strategies"].split(","), range(int(options["--seeds"])), [options["--env"]], values)
        begin(folder, runs, "")
        assert len(runs) == count and {run_steps(run.config) for run in runs} == {122_880}


def test_each_strategy_has_a_colour_of_its_own():
    found = colours(["random", "largest", *"abcdefgh"])
    assert len(set(found.values())) == 10


def test_another_space_cannot_be_compared_unless_it_is_what_a_variant_is_for(tmp_path):
    for words, refused in ((WORDS, True), ((*WORDS, "alone:space.values.hidden=64"), False)):
        folder = tmp_path / str(refused)
        runs = plan(folder, ("alone=a3cs",), [0], words=words)
        begin(folder, runs, "made up")
        for run, hidden in zip(runs, (256, 256, 64), strict=True):
            space = {**old_run.content("run.json")["space"], "config": {"hidden": hidden}}
            RunDir.create(folder, run.name, old_run.content("run.json", name=run.name, space=space))
            (folder / run.name / "summary.json").write_text(json.dumps(SUMMARY))
        if refused:
            with pytest.raises(ConfigError, match="search space"):
                comparison(folder)
        else:
            assert len(comparison(folder).runs) == 3
