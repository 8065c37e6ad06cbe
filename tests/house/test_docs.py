"""The commands and scripts of the documents are run, or read by the program that they call; links and claims about files hold."""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from made_table import table_of

from cosearch.config.presets import PRESETS
from cosearch.pipeline.forecast import Forecast
from latency_tables.commands import app as tables
from latency_tables.worklists import load_worklist

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *PAGES]
DOCUMENTS += sorted([*ROOT.glob("*/README.md"), *ROOT.glob("cosearch/*/README.md")])
FIRST_RUN = (ROOT / "docs" / "guide" / "first-run.md").read_text(encoding="utf-8")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]), "OMP_NUM_THREADS": "1"}


def name(path: Path) -> str:
    """How a test shows a document."""
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, kind: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The commands of the bash blocks, without comments; one that goes on with a backslash is one."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in re.sub(r"\s+# .*", "", line).split(" && ") if part.strip()]


def run(words: list[str], folder: Path) -> str:
    """Standard output of a command that ends well."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow  # each command of the guide as it stands, a whole search among them
@pytest.mark.timeout(900)
def test_the_guide_runs_as_written(tmp_path):
    guide = commands(README.split("## Guide")[1])
    first = [line for line in commands(FIRST_RUN) if line not in guide]
    assert len(guide) >= 8 and len(first) < len(guide)
    for command in [*guide, *first]:
        words = shlex.split(command)
        assert words[:2] == ["python", "-m"], command
        run(words[1:], tmp_path)
    folder = tmp_path / "runs" / "first"
    for file in ("run.json", "metrics.jsonl", "architecture.json", "agent.onnx", "agent.json", "summary.json", "report.html"):
        assert (folder / file).stat().st_size > 0, file
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    contract = {
        "score_mean",
        "score_ci95",
        "episodes",
        "teacher_score_mean",
        "latency_predicted_s",
        "latency_measured_s",
        "latency_target_s",
        "target_met",
        "table_provenance",
        "params",
        "macs",
        "env_steps",
        "wall_s",
    }
    assert contract <= set(summary)
    assert summary["target_met"] is True and summary["table_provenance"] == "estimated"


@functools.cache
def group_of(program: typer.Typer) -> typer.core.TyperGroup:
    """All verbs of a program; ``parse`` imports those that add themselves first."""
    return typer.main.get_command(program)


def parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a command as its program does; a search is also planned, to everything that it would trip over before training."""
    words = shlex.split(command)
    if words[:2] == ["pip", "install"] or words[0].startswith("."):
        assert words[0] != ".ci/check" or (ROOT / ".ci" / "check").is_file()
        return
    if words[0] == "python" and words[1].startswith("tests/"):  # a program of the tests: it is there, and knows the options
        text = (ROOT / words[1]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in text for word in words[2:] if word.startswith("--")), command
        return
    assert words[:2] == ["python", "-m"], command
    module, rest = words[2], words[3:]
    if module == "pytest":
        for word in rest:
            assert not word.startswith("tests") or (ROOT / word.split("::")[0]).exists(), command
    elif module == "cosearch":
        from cosearch.cli import app
        from cosearch.cli.commands import app as verbs
        from cosearch.cli.verbs import bench, compare, compress, deploy, measure, overview, teacher  # noqa: F401

        group = group_of(verbs)
        verb = rest[0] if rest and rest[0] in group.commands else app.DEFAULT_VERB
        arguments = rest[1:] if rest[:1] == [verb] else rest
        context = group.commands[verb].make_context(verb, list(arguments))
        if verb == app.DEFAULT_VERB and context.params["device"] != "this":
            monkeypatch.setattr(
                "cosearch.pipeline.forecast.forecast", lambda plan: Forecast(plan, 1.0, 1.0, 1.0, peak_memory_bytes=1)
            )
            assert app.main([verb, *arguments, "--dry-run"]) == 0, command
    elif module == "latency_tables":
        group = group_of(tables)
        group.commands[rest[0]].make_context(rest[0], rest[1:])
    elif module.startswith("cosearch.") and not inspect.signature(importlib.import_module(module).main).parameters:
        read = argparse.ArgumentParser.parse_args
        monkeypatch.setattr(sys, "argv", [module, *rest])
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda parser: str(read(parser)))
        with pytest.raises(AttributeError):  # what was read is no set of options: nothing runs
            importlib.import_module(module).main()
    elif module.startswith("cosearch."):
        program = typer.Typer()
        program.command()(importlib.import_module(module).main)
        typer.main.get_command(program).make_context(module, rest)
    else:
        assert module in ("sphinx", "accel_models"), command  # run by test_site.py and by tests/accel/test_accel_cli.py


OTHERS = [path for path in DOCUMENTS if commands(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", OTHERS, ids=name)
def test_every_command_can_be_read_by_its_program(path, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for command in commands(path.read_text(encoding="utf-8")):
        if "my-board" not in command and "my_cosearch" not in command:  # the package of CONTRIBUTING, see test_contributing.py
            parse(command, monkeypatch)


# A table of this machine, packages, clusters, and names that stand for the user's own.
NOT_HERE = re.compile(r"\bthis\b|/tvm-|\bmypackage\b|\bminigrid:|CarRacing|--cluster|\b[A-Z]{3,}\b")
ACCELERATED = [path for path in DOCUMENTS if "\npython -m cosearch search --device zc706" in path.read_text(encoding="utf-8")]
PLANNED = [pytest.param(path, marks=pytest.mark.slow if path in ACCELERATED else (), id=name(path)) for path in DOCUMENTS]


def shown_commands(text: str) -> list[str]:
    """The commands in text blocks and in sentences; there options of several targets are a command for the default device."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks(text, "text")).replace("\\\n", " ").splitlines()
    spoken = re.findall(r"`(python -m [^`\n]+|--latency-target-ms [\d.,]+)`", outside)
    written = [re.sub(r"\s+# .*", "", line).strip() for line in lines if line.startswith("python -m ")]
    return [*written, *(re.sub(r"^--", "python -m cosearch --", words) for words in spoken)]


def made(command: str) -> None:
    """The table that a measurement would write, with the rows of its work lists and no others."""
    words = shlex.split(command)
    values = group_of(tables).commands["measure"].make_context("measure", words[4:]).params
    ops = (op for name in values["worklist"] or ("chain", "references") for op in load_worklist(name).ops)
    table_of(Path(values["out"]), ops, device=values["device"])


@pytest.mark.parametrize("path", PLANNED)
def test_every_search_that_a_document_shows_can_be_planned(path, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "accel_models" / "designs" / "edge-npu.json", "mydesign.json")
    for command in shown_commands(path.read_text(encoding="utf-8")):
        if NOT_HERE.search(command):
            continue
        if command.startswith("python -m latency_tables measure") and "--out" in command:
            made(command)
        elif re.match(r"python -m cosearch (search|--\w)", command):
            parse(command, monkeypatch)


@pytest.mark.parametrize(
    "text",
    [
        "```text\npython -m cosearch --device raspberry-pi-4 --latency-target-ms 0.8,1.5   # two\n```",
        "as `python -m cosearch search --strategy largest space.name=impoola-cnn` does",
        "(`--latency-target-ms 0.2,0.4`)",
        "```text\npython -m latency_tables measure --host me@b --device b --out b.jsonl\n"
        "python -m cosearch search --table b.jsonl --env gym:CartPole-v1\n```",
    ],
)
def test_a_planted_search_that_cannot_be_planned_is_found(text, monkeypatch, capsys, tmp_path):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError):
        test_every_search_that_a_document_shows_can_be_planned(tmp_path / "page.md", monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "python -m cosearch serach",
        "python -m cosearch --env procgen:starpilto",
        "python -m cosearch evaluate runs/first --epsiodes 3",
        "python -m latency_tables check --jsno",
        "python -m cosearch.benchmarks.searches.credit --sedes 2",
        "python -m pytest tests/no_such_file.py",
        "python tests/fuzz/campaign.py --secnods 600",
        "rm -rf /",
    ],
)
def test_a_planted_wrong_command_is_found(command, monkeypatch, capsys):
    with pytest.raises((AssertionError, typer.BadParameter, typer.TyperException)):
        parse(command, monkeypatch)


SCRIPTS = {  # what is run here; measuring a machine takes minutes and is slow
    "own_task.py": ["--steps", "2048", "--runs", "runs"],
    "play_agent.py": ["runs/Corridor-v0-raspberry-pi-4-reinforce-s0", "--env", "own_task:Corridor-v0", "--episodes", "2"],
    "compare_devices.py": ["runs/Corridor-v0-raspberry-pi-4-reinforce-s0/architecture.json"],
}


@pytest.mark.slow
def test_the_examples_run_and_say_what_they_promise(tmp_path):
    said = {script: run([str(ROOT / "examples" / script), *words], tmp_path) for script, words in SCRIPTS.items()}
    assert re.search(r"score -?\d\.\d\d over 64 episodes\n\d+ us on raspberry-pi-4, estimated\ngoal at -?5", said["own_task.py"])
    assert "over 2 episodes" in said["play_agent.py"] and "torch imported: False" in said["play_agent.py"]
    rows = said["compare_devices.py"].splitlines()
    assert rows[0].split() == ["jetson", "raspberry-pi-4"] and rows[-1].split() == ["estimated", "estimated"]
    columns = [[float(cell) for cell in re.findall(r"([\d.]+) us", row)] for row in rows[1:-1]]
    for *parts, whole in zip(*columns, strict=True):
        assert sum(parts) == pytest.approx(whole, abs=0.5)
    assert "407.0 us" in run([str(ROOT / "examples" / "compare_devices.py")], tmp_path)  # the network of the README's run


@pytest.mark.slow
def test_the_example_that_measures_this_machine(tmp_path):
    said = run([str(ROOT / "examples" / "measure_here.py"), "--rounds", "3", "--budget-s", "10", "--steps", "2048"], tmp_path)
    assert re.search(r"here.jsonl: \d+ operations, mean error [\d.]+%", said) and "target met" in said


def test_every_example_is_run_and_documented():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert scripts == {*SCRIPTS, "measure_here.py"}
    text = (ROOT / "docs" / "guide" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+\.py)` \|", text, re.MULTILINE)) == scripts


def test_the_python_of_the_pages_runs(tmp_path, monkeypatch):
    """The README's three lines and the guide's, in one folder; the searches are cut short."""
    import cosearch

    monkeypatch.chdir(tmp_path)
    real = cosearch.search
    short = {
        "search_steps": 512,
        "retrain_steps": 512,
        "eval_episodes": 8,
        "parity_frames": 8,
        "measure_s": 0.1,
    }
    asked = []

    def cut(*words, **values):
        asked.append(words)
        return real(
            *words, **{**values, "threads": 1, "quiet": True, "budget": short, "env.num_envs": 8, "rl": {"rollout_steps": 16}}
        )

    monkeypatch.setattr(cosearch, "search", cut)
    guide = blocks((ROOT / "docs" / "guide" / "python.md").read_text(encoding="utf-8"), "python")
    (home,) = blocks((ROOT / "docs" / "index.md").read_text(encoding="utf-8"), "python")
    (readme,) = blocks(README, "python")
    space: dict[str, object] = {"cosearch": cosearch}
    for code in (guide[1], guide[0], home):  # the search first, then what plays its agent
        exec(code, space)
    assert asked == [("gym:CartPole-v1", "raspberry-pi-4"), ("procgen:starpilot", "jetson")] and space["score"] > 0
    assert [line.split("#")[0].split() for line in readme.splitlines()] == [
        line.replace(", threads=1", "").split() for line in home.splitlines()
    ]


def test_the_first_run_names_every_preset():
    (sentence,) = re.findall(r"Presets are named sets of values: ([^.]+)\.", FIRST_RUN)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(PRESETS)


def test_the_readme_is_short_and_says_what_is_not_shown():
    assert len(README.splitlines()) < 150
    assert "does not pay yet" in README and "**estimated**" in README


def test_the_install_commands_are_the_ones_that_are_tested():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install torch==2.13.0" in README and "torch==2.13.0" in script
    assert "'.[test,docs]'" in README and "'.[test,docs]'" in script
    assert '-m "not slow"' in README and '-m "not slow"' in script


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
