"""Run folders of a benchmark, which goes on with those that are there: only where they are what it would make now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cosearch.compare.worker import difference
from cosearch.planning.plan import Plan
from cosearch.planning.recorded import config_of
from cosearch.record.json_record import to_json
from cosearch.record.run_record import RunRecord
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError

ADVICE = "give another folder with --runs, or move it away"
PLACES = ("--runs", "--run", "--seed", "--strategy")  # options whose values tell runs of one benchmark apart


def open_or_create(folder: Path, plan: Plan) -> RunDir:
    """The run of a plan, new or begun.

    Args:
        folder: of the run.
        plan: what is asked for.

    Raises:
        RunFolderError: the folder holds a run of another configuration.
    """
    if not folder.exists():
        return RunDir.create(folder.parent, folder.name, to_json(plan.record("benchmark")))
    check_run(folder, plan)
    return RunDir.open(folder)


def check_run(folder: Path, plan: Plan) -> None:
    """Raise where a folder holds a run of another configuration than the plan's.

    Args:
        folder: of the run.
        plan: what is asked for.

    Raises:
        RunFolderError: names the values that differ.
    """
    recorded = config_of(RunDir.open(folder))
    if recorded != plan.config:
        raise RunFolderError(f"{folder} was made with other values ({difference(recorded, plan.config)}); {ADVICE}")


def check_command(folder: Path, words: Sequence[str]) -> None:
    """Raise where a folder holds a run that another command line made.

    Args:
        folder: of the run.
        words: the command's words after the program's name; where its folder lies says nothing.

    Raises:
        RunFolderError: shows both.
    """
    began = RunDir.open(folder).read(RunRecord).command.split()
    asked = " ".join(("cosearch", *words)).split()
    if _without(began, PLACES[:1]) != _without(asked, PLACES[:1]):
        raise RunFolderError(f"{folder} was made by `{' '.join(began)}`, asked for is `{' '.join(asked)}`; {ADVICE}")


def check_alike(folders: Sequence[Path]) -> None:
    """Raise where runs that are compared differ in more than strategy and seed.

    Args:
        folders: of the runs.

    Raises:
        RunFolderError: shows the first two that differ.
    """
    commands = {folder: _without(RunDir.open(folder).read(RunRecord).command.split(), PLACES) for folder in folders}
    for folder, words in commands.items():
        if words != commands[folders[0]]:
            raise RunFolderError(
                f"{folders[0]} and {folder} cannot be compared: they were made with `{' '.join(commands[folders[0]])}` and "
                f"`{' '.join(words)}`; {ADVICE}"
            )


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Words without some options and their values."""
    return [word for before, word in zip(["", *words], words) if word not in options and before not in options]
