"""What must be the same on every machine that works on one run: this package's code, and torch."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from latency_tables.errors import ConfigError

PACKAGES = ("cosearch", "latency_tables", "accel_models")


@dataclass(frozen=True)
class Identity:
    """What a process computes with.

    Attributes:
        code: SHA-256 over the sources of this project's packages.
        torch: its version.
    """

    code: str
    torch: str


def package_folders() -> tuple[Path, ...]:
    """The folders of this project's packages, as they are imported here."""
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ConfigError(f"the package {name} has no folder here; install cosearch with `pip install cosearch`")
        found.append(Path(spec.origin).parent)
    return tuple(found)


@functools.cache
def identity_here() -> Identity:
    """The identity of this process."""
    digest = hashlib.sha256()
    for folder in package_folders():
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return Identity(digest.hexdigest(), importlib.metadata.version("torch"))


def check_identity(driver: Identity, *, other_torch: bool) -> None:
    """Raise unless this process computes with what the one does that asked for the work.

    Args:
        driver: of the process that asked.
        other_torch: another version of torch is none of its business: a run records the version that it began with.

    Raises:
        ConfigError: other code, or another version of torch.
    """
    here, node = identity_here(), os.uname().nodename
    if here.code != driver.code:
        raise ConfigError(
            f"the node {node} has another cosearch ({here.code[:12]}) than this machine ({driver.code[:12]}): remove it there "
            "with `pip uninstall cosearch`, Ray brings the code along"
        )
    if here.torch != driver.torch and not other_torch:
        raise ConfigError(
            f"the node {node} has torch {here.torch}, this machine {driver.torch}: results would differ. Install the same there "
            f"(`pip install torch=={driver.torch.partition('+')[0]}`), or say --other-torch: run.json records the version"
        )
