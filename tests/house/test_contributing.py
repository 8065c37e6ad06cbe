"""The examples of CONTRIBUTING.md as the package of a third party: built, found by entry points, checked, searched with."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
FILES = {match[1]: body[match.end() :] for _, body in BLOCKS if (match := re.match(r"# (my_cosearch\S*/\S+)\n", body))}
COMMANDS = [line for kind, body in BLOCKS if kind == "bash" for line in body.splitlines() if "my-board" in line]
METADATA = "Metadata-Version: 2.1\nName: my_cosearch\nVersion: 1.0\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with the package as its documentation writes it, installed by its metadata alone."""
    folder = tmp_path_factory.mktemp("site")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    (folder / "my_cosearch" / "__init__.py").touch()
    (folder / "my_cosearch-1.0.dist-info" / "METADATA").write_text(METADATA)
    (folder / "my_cosearch" / "my-board").mkdir()
    done = run(folder, *shlex.split(COMMANDS[0])[1:])
    assert done.returncode == 0, done.stderr
    return folder


def run(folder, *words):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_document_has_an_example_of_everything_and_a_check_of_each():
    kinds = ("strategy", "operation", "space", "environment")
    assert {f"my_cosearch/{kind}.py" for kind in kinds} <= set(FILES)
    assert {f"my_cosearch/check_{kind}.py" for kind in kinds} <= set(FILES)
    assert len(COMMANDS) == 2 and all(line.startswith("python -m ") for line in COMMANDS)
    assert max(len(body.splitlines()) for body in FILES.values()) <= 40


def test_the_conformance_check_of_each_example_passes(package):
    names = [f"my_cosearch.check_{kind}" for kind in ("strategy", "operation", "space", "environment")]
    done = run(package, "-c", f"import runpy\nfor name in {names}: runpy.run_module(name, run_name='__main__')")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_broken_example_does_not_pass_its_check(package):
    check = "strategy.HillClimbing.restore = lambda self, state: None\nimport my_cosearch.check_strategy"
    done = run(package, "-c", f"from my_cosearch import strategy\n{check}")
    assert done.returncode == 1 and "resumed, it proposes other architectures" in done.stderr


def names(folder):
    """Names in each of the lists, as a process in ``folder`` sees them."""
    code = (
        "import json\nfrom cosearch.cli.listing import listing\nprint(json.dumps({what: [row['name'] for row in "
        "listing(what)] for what in ('strategies', 'ops', 'spaces', 'envs', 'devices')}))"
    )
    done = run(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_lists_show_the_package_and_without_it_they_do_not(package):
    with_it, without = names(package), names(ROOT)
    for what, name in (
        ("strategies", "hill-climbing"),
        ("ops", "conv_k7"),
        ("spaces", "plain"),
        ("envs", "catch:small"),
        ("devices", "my-board"),
    ):
        assert set(with_it[what]) - set(without[what]) == {name}
    done = run(package, "-m", "cosearch", "list", "strategies", "--json")
    assert "hill-climbing" in {row["name"] for row in json.loads(done.stdout)}


@pytest.mark.slow
def test_one_search_with_all_of_them(package):
    done = run(package, *shlex.split(COMMANDS[1])[1:], "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["strategy"] == "hill-climbing" and summary["target_met"] and summary["latency_predicted_for"] == "my-board"
    assert summary["table_provenance"] == "estimated" and summary["env_steps"] == 6144
    architecture = json.loads((package / "runs" / "mine" / "architecture.json").read_text())
    assert architecture["space"] == "plain" and len(architecture["derived_by"]["candidates"]) == 4


def test_an_entry_that_cannot_be_loaded_is_an_error_that_names_its_package(package, tmp_path):
    info = tmp_path / "broken_strategies-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.replace("my_cosearch", "broken_strategies"))
    (info / "entry_points.txt").write_text("[cosearch.strategies]\nlost = broken_strategies:LOST\n")
    done = run(tmp_path, "-m", "cosearch", "list", "strategies")
    assert done.returncode == 2 and "'lost' of broken_strategies" in done.stderr and "Traceback" not in done.stderr
