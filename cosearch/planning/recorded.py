"""What a run folder says of the request that made it."""

from __future__ import annotations

from cosearch.config.run import Config, config_from_dict
from cosearch.record.rundir import RunDir
from latency_tables.errors import RunFolderError


def config_of(run: RunDir) -> Config:
    """The configuration of a run folder.

    Raises:
        RunFolderError: its record holds none.
    """
    values = run.record.get("config")
    if not isinstance(values, dict):
        raise RunFolderError(f"{run.path / 'run.json'} holds no configuration")
    return config_from_dict(values, str(run.path / "run.json"))
