"""The exception tree of the whole project; each command maps it to one message and an exit code.

CosearchError
├── RequestError                  the request is wrong: exit code 2
│   ├── ConfigError               a config key, value, preset or file
│   ├── UnknownNameError          a name that no registry holds; suggests the nearest
│   ├── MissingExtraError         an optional package is not installed; names the pip command
│   ├── RunFolderError            a run folder exists, is in use, is unreadable or is not one
│   ├── TableError                a table cannot be read or is not valid
│   │   └── MissingOpError        an operation has no row; names the nearest rows and the command that measures it
│   ├── DesignError               an accelerator design or its file is not valid
│   ├── ShapeError                two shapes do not fit
│   └── InfeasibleTargetError     no architecture meets the target; names the fastest there is
├── InfeasibleCandidateError      this candidate cannot be built or costed; the search records it and goes on
└── RunFailedError                the run itself failed: exit code 1
    ├── DiskFullError             no space is left: exit code 2, as nothing is wrong with the run; it goes on once there is
    ├── NonFiniteError            a loss or a gradient is NaN or infinite
    ├── EnvironmentFailedError    an environment died or broke its contract
    ├── ParityError               an exported network differs from the network it was made from
    └── MeasurementError          a measurement could not be made or is too noisy to be written
"""


class CosearchError(Exception):
    """Root of every error that this project raises on purpose."""

    exit_code = 1


class RequestError(CosearchError):
    """What was asked for is wrong; nothing was done."""

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
    """An accelerator design, or the file that describes it, is not valid."""


class ShapeError(RequestError):
    """Two shapes do not fit each other."""


class InfeasibleTargetError(RequestError):
    """No architecture of the space meets the target."""


class InfeasibleCandidateError(CosearchError):
    """One candidate cannot be built or costed; the search records it and goes on."""


class RunFailedError(CosearchError):
    """The run failed; the last good checkpoint is kept."""


class DiskFullError(RunFailedError):
    """No space is left on the disk; what it held before is kept, and the run goes on once there is space."""

    exit_code = 2


class NonFiniteError(RunFailedError):
    """A loss, gradient or cost is NaN or infinite."""


class EnvironmentFailedError(RunFailedError):
    """An environment died, or returned another shape or dtype than it announced."""


class ParityError(RunFailedError):
    """An exported network does not equal the network it was made from."""


class MeasurementError(RunFailedError):
    """A measurement could not be made, or is too noisy to be kept."""
