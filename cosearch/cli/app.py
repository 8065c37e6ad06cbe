"""The command line: verbs that call the pipeline, errors as one message, exit codes 0, 1, 2, 130. No logic of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cosearch.cli.environment import as_typed, find_modules_here, prepare_process
from cosearch.cli.watch import watched
from latency_tables.text.terminal import plain_streams, say, system_fault

DEFAULT_VERB = "search"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after the program's name; None: the process's own.

    Returns:
        0 done, 1 failed run, 2 wrong request, 130 interrupted (and resumable).
    """
    prepare_process()
    plain_streams()
    find_modules_here()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # while the libraries were still being loaded
        say("interrupted before anything had begun", error=True)
        return INTERRUPTED


def program() -> None:
    """The command as a program: it ends the process with its exit code, and says so where something else ended the work."""
    sys.exit(watched(main))


def _run(words: list[str]) -> int:
    import typer

    from cosearch.cli.commands import app, command_line, resume_hint
    from cosearch.cli.verbs import bench, compare, compress, deploy, measure, overview, teacher  # noqa: F401  they add themselves
    from latency_tables.errors import CosearchError, short

    group = typer.main.get_group(app)
    resume_hint.set(("", None))
    if words[:1] == ["--version"]:
        import importlib.metadata

        try:
            say(importlib.metadata.version("cosearch"))
        except importlib.metadata.PackageNotFoundError:
            say(f"not installed, run from {Path(__file__).parents[2]}")
        return 0
    if not words or (words[0] not in group.commands and words[0] != "--help"):
        if words and not words[0].startswith("-") and "=" not in words[0]:
            import difflib

            near = difflib.get_close_matches(words[0], list(group.commands), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            say(f"error: unknown verb {words[0]!r:.80}.{hint} `cosearch --help` shows all", error=True)
            return 2
        words.insert(0, DEFAULT_VERB)
    command_line.set("cosearch " + " ".join(words))
    try:
        result = group.main(words, prog_name="cosearch", standalone_mode=False)
        if result == INTERRUPTED:  # the command library turns Ctrl-C into this code
            return _interrupted(*resume_hint.get())
        return result if isinstance(result, int) else 0
    except CosearchError as error:
        say(f"error: {short(as_typed(str(error)))}", error=True)
        return error.exit_code
    except typer.TyperException as error:  # a usage error: unknown option, wrong type
        if hasattr(error, "show"):
            error.show()
        else:
            say(f"error: {short(error)}", error=True)
        return 2
    except SystemExit as error:  # of a library or of a user's code: a command without a result never ends with 0
        if isinstance(error.__context__, BrokenPipeError):  # what draws the help ends like this where nobody reads on
            return 1
        say(f"error: the program was ended from inside, SystemExit({error.code!r}), before there was a result", error=True)
        return error.code if isinstance(error.code, int) and error.code else 1
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted(*resume_hint.get())
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        say(f"error: {system_fault(error)}", error=True)
        return 1


def _interrupted(words_to_type: str, run: Path | None) -> int:
    begun = words_to_type and (run is None or run.is_dir())
    hint = f"; {words_to_type} goes on from the last checkpoint" if begun else " before anything had begun"
    say(f"interrupted{as_typed(hint)}", error=True)
    return INTERRUPTED
