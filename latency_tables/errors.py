"""The exception tree of the whole project; each command maps it to one message and an exit code.

CosearchError
├── RequestError                  the request is wrong: exit code 2
│   ├── ConfigError               a config key, value, preset or file
│   ├── UnknownNameError          a name that no registry holds; suggests the nearest
│   ├── MissingExtraError         an optional package is not installed; names the pip command
│   ├── RunFolderError            a run folder exists, is in use, is unreadable or is not one
│   ├── TableError                a table cannot be read or is not valid
│   │   └── MissingOpError        an operation has no row; names the nearest rows and the command that measures it
│   ├── DesignError               an accelerator design or one of its files is not valid, or it does not hold a network
│   ├── ShapeError                shapes, choices or weights do not fit each other
│   └── InfeasibleTargetError     no architecture was found that meets the targets; says what to ask for
├── InfeasibleCandidateError      a network cannot be put on an accelerator design; a search of designs leaves it out
└── RunFailedError                the run itself failed: exit code 1
    ├── DiskFullError             no space is left: exit code 2, as nothing is wrong with the run; it goes on once there is
    ├── NonFiniteError            a loss, gradient, output, cost or recorded number is NaN or infinite
    ├── EnvironmentFailedError    an environment died or broke its contract
    ├── ParityError               an exported network differs from the network it was made from
    └── MeasurementError          a measurement could not be made or is too noisy to be written
"""

from __future__ import annotations

import unicodedata

MAX_LETTERS = 2000  # of a message
STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories of control, format and separator characters


def plain(text: str) -> str:
    """Foreign text as plain text: what steers a terminal or turns the direction of writing is a replacement character.

    Names and descriptions come from files that somebody else wrote; an escape sequence in one would otherwise change the title,
    the colours or the clipboard of the terminal that shows it.

    Args:
        text: of any origin; line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(letter) in STEERING and letter not in "\n\t" else letter for letter in text)


def short(text: object) -> str:
    """A message of at most 2,000 letters: one that repeats a large input is cut in its middle."""
    words = str(text)
    return words if len(words) <= MAX_LETTERS else f"{words[: MAX_LETTERS - 500]} ... {words[-480:]}"


class CosearchError(Exception):
    """Root of every error that this project raises on purpose; its message is short and plain text, whatever it repeats.

    Args:
        message: what is wrong.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(plain(short(message)))


class RequestError(CosearchError):
    """What was asked for is wrong, or cannot be had: what to ask for instead is in the message."""

    exit_code = 2


class ConfigError(RequestError):
    """One or more faults of the configuration, all of them in one message."""


class UnknownNameError(RequestError):
    """A name that no registry holds."""


class MissingExtraError(RequestError):
    """An optional package is not installed."""


class RunFolderError(RequestError):
    """A run folder exists already, is in use, or cannot be read."""


class TableError(RequestError):
    """A latency table cannot be read or is not valid."""


class MissingOpError(TableError):
    """An operation has no row in a table."""


class DesignError(RequestError):
    """An accelerator design, a file of layers or of reference rows is not valid, or no design holds what was asked for."""


class ShapeError(RequestError):
    """Shapes of blocks, choices of an architecture or weights of a path do not fit each other."""


class InfeasibleTargetError(RequestError):
    """No architecture of the space was found that meets the targets.

    Args:
        message: what was expected and got.
        least: what the cheapest architecture costs, in the unit of the target; None: nobody looked.
        metric: of the target that none meets, such as ``latency_s`` or ``file_bytes``; ``least`` is then what it is expected to
            measure. None: of the solver, which knows predicted costs alone.
    """

    def __init__(self, message: str, least: float | None = None, metric: str | None = None) -> None:
        super().__init__(message)
        self.least, self.metric = least, metric


class InfeasibleCandidateError(CosearchError):
    """A network cannot be put on an accelerator design, or costed there; a search of designs leaves the design out."""


class RunFailedError(CosearchError):
    """The request was right, but the run failed; what it had written before is kept."""


class DiskFullError(RunFailedError):
    """No space is left on the disk; what it held before is kept, and the run goes on once there is space."""

    exit_code = 2


class NonFiniteError(RunFailedError):
    """A loss, a gradient, an output of the policy, a cost or a number to be recorded is NaN or infinite."""


class EnvironmentFailedError(RunFailedError):
    """An environment died, or returned another shape or dtype than it announced."""


class ParityError(RunFailedError):
    """An exported network does not equal the network it was made from."""


class MeasurementError(RunFailedError):
    """A measurement could not be made, or is too noisy to be kept."""
