"""Advice works when it is followed: each command, option and key that a message names exists, and what is cheap is typed."""

import ast
import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from accel_models.cli import app as accelerators
from accel_models.cli import main as accel_models
from cosearch.cli import app
from cosearch.cli.commands import app as verbs
from cosearch.cli.environment import as_typed
from cosearch.config.run import Config, config_to_dict, resolve
from cosearch.planning.device.constraints import rounded_up
from cosearch.report.data import flatten
from latency_tables.commands import app as tables
from latency_tables.errors import ConfigError
from latency_tables.text.reading import parse_word

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for package in ("cosearch", "accel_models", "latency_tables") for path in (ROOT / package).rglob("*.py")
    if "benchmarks" not in path.parts
)  # fmt: skip
COMMAND = re.compile(r"`([^`\n]+)`|[:,] (python -m (?:cosearch|latency_tables|accel_models) [^`,]+)")
PROGRAMS = {"cosearch": verbs, "latency_tables": tables, "accel_models": accelerators}
OTHER_PROGRAMS = {"rm", "ls", "ssh", "pip", "ray"}
SECTIONS = "env|rl|dqn|sac|distill|objective|budget|strategy|accel"
KEY = re.compile(rf"\b((?:{SECTIONS})\.[a-z_]+)=")
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]+)")
BUNDLED = ROOT / "cosearch" / "deploy" / "bundle" / "files"  # programs of a bundle
NOT_OURS = {"ssh-option", "key", "address", "head", "resources"}  # of typer's own making, of TVM, and of Ray
FILLED_IN = {"verb": "resume", "what": "table"}


@functools.cache
def texts(path: Path) -> list[str]:
    """All texts of a file that are no docstrings; what is filled in at run time is 1, or a verb."""
    every = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    documents = {id(node.value) for node in every if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    joined = [node for node in every if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in joined for part in ast.walk(node) if part is not node}
    others, found = documents | inside, []
    for node in every:
        if isinstance(node, ast.JoinedStr) and id(node) not in inside:
            found.append("".join(_part(part) for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in others:
            found.append(node.value)
    return found


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return FILLED_IN.get(ast.unparse(part.value), "1") if isinstance(part, ast.FormattedValue) else "1"


def commands() -> list[tuple[str, str]]:
    """Where a message of ours names a command, and the command."""
    found = []
    for path in SOURCES:
        for text in texts(path):
            for match in COMMAND.finditer(text):
                for command in re.split(r" +\| +| && ", (match[1] or match[2]).strip()):
                    words = command.split()
                    if len(words) > 1 and words[0] in ("cosearch", "python", *OTHER_PROGRAMS):
                        found.append((str(path.relative_to(ROOT)), command))
    return found


@functools.cache
def group_of(program: str) -> typer.core.TyperGroup:
    """All verbs of a program, once it has been started."""
    return typer.main.get_command(PROGRAMS[program])


def read(command: str) -> None:
    """Read a command as its program does.

    Raises:
        Exception: the program does not know the verb or an option, or lacks a value.
    """
    words = shlex.split(re.sub(r"\b(MS|N)\b", "1", command).replace("ARCH.json", "a.json"))
    if words[0] == "python":
        assert words[1] == "-m" and words[2] in PROGRAMS, command
        words = words[2:]
    if words[0] in OTHER_PROGRAMS:
        return
    program, *rest = words
    group = group_of(program)
    if program == "cosearch" and (not rest or rest[0].startswith("-")):
        rest = [word for word in [app.DEFAULT_VERB, *rest] if word != "--help"]
    while hasattr(group, "commands"):
        verb, *rest = rest or ["nothing"]
        assert verb in group.commands, f"{command}: no verb {verb!r}"
        group = group.commands[verb]
    group.make_context(verb, rest)


@pytest.fixture(scope="module", autouse=True)
def all_verbs():
    """What the program itself adds to its verbs when it is started."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert app.main(["list", "presets"]) == 0


def test_every_command_that_a_message_names_can_be_read_by_its_program():
    found, faults = commands(), []
    for where, command in found:
        try:
            read(command)
        except Exception as error:  # noqa: BLE001  of whatever class the program's parser raises
            faults.append(f"{where}: `{command}`: {type(error).__name__} {error}")
    assert not faults, "\n".join(faults)
    assert len(found) > 60


WRONG = ["cosearch resumee 1", "cosearch resume 1 --tabel x", "python -m latency_tables lst", "cosearch resume"]


@pytest.mark.parametrize("command", WRONG)
def test_a_planted_wrong_command_is_found(command):
    with pytest.raises((AssertionError, typer.BadParameter, typer.TyperException)):
        read(command)


def keys() -> set[str]:
    return {key.split(".values.")[0] for key, _ in flatten(config_to_dict(Config()))}


def test_every_key_that_a_message_names_is_one_of_the_configuration():
    known, found = keys(), {key for path in SOURCES for text in texts(path) for key in KEY.findall(text)}
    assert len(found) > 15 and not {key for key in found if key not in known and not key.endswith(".values")}


LISTED = re.compile(r"(?<![\w.])'?([a-z_]+(?:\.[a-z_]+)+=)'?(\[[^\]\n]*\])'?")


def lists_in(text: str) -> list[str]:
    """The words KEY=[...] of a message or a document, as the program gets them: ``...`` stands for more of the kind."""
    return [key + re.sub(r",? ?\.\.\.", "", value) for key, value in LISTED.findall(text)]


def check_list(word: str) -> None:
    """Read a word KEY=[...] as every command does."""
    key, _, value = word.partition("=")
    resolve(overrides=[word])
    assert isinstance(parse_word(value, key, ConfigError), list), word


def test_every_list_that_a_message_or_a_document_names_is_read_with_its_quotes_and_without():
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    said = [word for path in SOURCES for text in texts(path) for word in lists_in(text)]
    written = [word for path in documents for word in lists_in(path.read_text(encoding="utf-8"))]
    assert len(said) >= 3 and len(written) >= 8
    for word in [*said, *written, *(word.replace('"', "") for word in written)]:
        check_list(word)


def test_a_name_with_a_comma_is_advised_in_quotes_that_a_shell_leaves():
    advice = [word for path in SOURCES for text in texts(path) for word in re.findall(r"\S*keep:NAME\S*", text)]
    assert advice
    for (word,) in map(shlex.split, advice):
        assert resolve(overrides=[word]).env.wrappers == ("keep:NAME,...",)


@pytest.mark.parametrize("word", ["env.wrappers=[flatten, [2]]", 'space.values.memory=[none, "gru_w32]', "env.wrapers=[flatten]"])
def test_a_planted_wrong_list_is_found(word):
    with pytest.raises((ConfigError, AssertionError)):
        check_list(word)


def test_every_option_that_a_message_names_is_one_of_a_program():
    groups = [typer.main.get_command(program) for program in PROGRAMS.values()]
    nested = [command for group in groups for command in group.commands.values()]
    nested += [command for group in nested for command in getattr(group, "commands", {}).values()]
    parameters = [parameter for command in nested for parameter in command.params]
    known = {word.removeprefix("--") for parameter in parameters for word in [*parameter.opts, *parameter.secondary_opts]}
    known |= set(re.findall(r'add_argument\("--([a-z-]+)"', (BUNDLED / "run_agent.py").read_text(encoding="utf-8")))
    said = [text for path in SOURCES for text in texts(path) if len(text.split()) > 3 and "<" not in text]
    found = {option for text in said for option in OPTION.findall(text)} - {"help", "version"}
    assert len(found) > 20 and not found - known - NOT_OURS, found - known - NOT_OURS


@pytest.mark.parametrize("value", [0.000100001, 2e-4, 1.0, 9.9999, 9999.9, 123456.7, 3e-9])
def test_a_bound_to_type_is_never_below_and_nearly_equal(value):
    typed = float(f"{rounded_up(value):f}")
    assert value <= typed <= value * 1.0011 and len(f"{rounded_up(value).normalize():e}".split("e")[0]) <= 5


TARGETS = {  # how a target was asked for -> (words, what introduces the advice)
    "milliseconds": (["--latency-target-ms", "0.0001"], r"(--latency-target-ms \S+),"),
    "milliseconds with a margin": (["--latency-target-ms", "0.0001", "objective.margin=0.3"], r"(--latency-target-ms \S+),"),
    "a share": (["objective.latency_ratio=1e-4"], r"(objective\.latency_ratio=\S+) or more"),
    "a share with a margin": (
        ["objective.latency_ratio=1e-4", "objective.margin=0.3"],
        r"(objective\.latency_ratio=\S+) or more",
    ),
}


@pytest.mark.parametrize("how", TARGETS)
def test_a_target_that_is_asked_for_can_be_met(how, capsys, monkeypatch):
    monkeypatch.setattr("cosearch.pipeline.forecast.forecast", lambda plan: pytest.skip.Exception)
    words, pattern = TARGETS[how]
    base = ["search", "--env", "gym:CartPole-v1", "--device", "raspberry-pi-4", "--dry-run"]
    assert app.main([*base, *words]) == 2
    said = capsys.readouterr().err
    advice = re.search(pattern, said)
    assert advice is not None, said
    kept = [word for word in words if "margin" in word]
    planned = []
    monkeypatch.setattr("cosearch.pipeline.forecast.forecast", planned.append)
    with pytest.raises(AttributeError):  # the plan stands: the forecast, which is nothing here, cannot be printed
        app.main([*base, *kept, *advice[1].split()])
    assert len(planned) == 1


@pytest.mark.parametrize("name", ["impala", "edge-npu"])
def test_a_folder_does_not_hide_a_shipped_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as stopped:
        accel_models(["evaluate", "edge-npu", "impala", "--json"])
    assert stopped.value.code == 0 and capsys.readouterr().out.startswith("{")


def test_commands_in_messages_are_those_of_the_program_that_was_started(monkeypatch):
    message = "stopped; `cosearch resume runs/a` goes on"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cosearch", "search"])
    assert as_typed(message) == message
    monkeypatch.setattr(sys, "argv", [str(ROOT / "cosearch" / "__main__.py"), "search"])
    assert as_typed(message) == "stopped; `python -m cosearch resume runs/a` goes on"


MODULE = """import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
gymnasium.register("Mine-v0", entry_point=CartPoleEnv)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "module", "script elsewhere", "elsewhere as advised"])
def test_an_environment_beside_the_user_is_found_by_script_and_module(way, tmp_path):
    (tmp_path / "my_own_env.py").write_text(MODULE)
    (tmp_path / "elsewhere").mkdir()
    start = (
        ["-m", "cosearch"] if way == "module" else ["-P", "-c", "import sys; from cosearch.cli.app import main; sys.exit(main())"]
    )
    words = [*start, "sample", "--env", "gym:my_own_env:Mine-v0", "--out", "s"]
    path = [str(ROOT), *([str(tmp_path)] if way == "elsewhere as advised" else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    folder = tmp_path / "elsewhere" if "elsewhere" in way else tmp_path
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if way == "script elsewhere":
        assert done.returncode == 2 and "there is no module 'my_own_env'" in done.stderr and "PYTHONPATH=FOLDER" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
