"""The files of a user that Ray brings to each machine: own tables and teachers, and the modules of the current folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cosearch.config.run import Config
from cosearch.fleet.cluster import Cluster
from cosearch.fleet.ray_engine import LOCAL
from cosearch.rl.foreign.onnx_file import external_files


@dataclass(frozen=True)
class Carried:
    """What is brought along.

    Attributes:
        folder: becomes the current folder of each process there; None: nothing is brought.
        by_path: where the files lie in it, by the path that a configuration names; the named one is the first, and the others
            are in its folder or below.
    """

    folder: Path | None = None
    by_path: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


NOTHING = Carried()


def files_of(config: Config) -> dict[str, tuple[Path, ...]]:
    """The files of a user that a run reads, each with those that belong to it, by the path that the configuration names."""
    found: dict[str, tuple[Path, ...]] = {}
    if config.table:
        found[config.table] = (Path(config.table),)
    teacher = Path(config.distill.teacher)
    if teacher.is_file():
        beside = [teacher.with_suffix(".safetensors")] if teacher.suffix == ".json" else []
        beside += [teacher.parent / name for name in external_files(teacher)] if teacher.suffix == ".onnx" else []
        found[config.distill.teacher] = (teacher, *beside)
    return found


def with_files_here(config: Config, files: Mapping[str, tuple[str, ...]]) -> Config:
    """A configuration whose files are those that were brought along, where there is none at the path that it names.

    Args:
        config: of a run.
        files: see :class:`Carried`.
    """

    def here(path: str) -> str:
        return path if path not in files or Path(path).exists() else str(Path(files[path][0]).resolve())

    return replace(config, table=here(config.table), distill=replace(config.distill, teacher=here(config.distill.teacher)))


@contextmanager
def carried(configs: Sequence[Config], cluster: Cluster) -> Iterator[Carried]:
    """What machines of a cluster are brought for some runs; it is there inside the ``with`` block.

    Args:
        configs: of the runs.
        cluster: where they are made; one of this machine alone needs nothing.
    """
    if cluster.address in ("", LOCAL):
        yield NOTHING
        return
    with tempfile.TemporaryDirectory(prefix="cosearch-") as place:
        folder, by_path = Path(place), dict[str, tuple[str, ...]]()
        for module in Path.cwd().glob("*.py"):
            shutil.copy(module, folder)
        wanted = {path: files for config in configs for path, files in files_of(config).items()}
        for number, (path, files) in enumerate(sorted(wanted.items())):
            inside = folder / "inputs" / str(number)
            copies = [inside / file.relative_to(files[0].parent) for file in files]  # an ONNX file names those in its subfolders
            for file, copy in zip(files, copies, strict=True):
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
            by_path[path] = tuple(copy.relative_to(folder).as_posix() for copy in copies)
        yield Carried(folder, by_path) if any(folder.iterdir()) else NOTHING
