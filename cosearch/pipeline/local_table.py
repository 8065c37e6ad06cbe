"""``--device this``: measure the machine the command runs on first, for exactly the blocks of the space and the references.

``--device this/onnxruntime-int8-1t`` measures it with that runtime, dtype and number of threads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from cosearch.config.run import Config
from cosearch.deploy.sampling import spread_networks
from cosearch.planning.space import make_space
from cosearch.record.durable import write_bytes_atomic
from cosearch.seeding import Streams
from cosearch.space.network import reference_agents
from cosearch.training.progress import Progress
from latency_tables.devices import Identity, identity_of
from latency_tables.errors import RequestError
from latency_tables.measuring.identity import is_same_place, place_here, recorded_place
from latency_tables.measuring.job import MeasureRequest, run
from latency_tables.measuring.settings import Settings
from latency_tables.schema import read_table
from latency_tables.text.writing import make_folder

THIS = "this"
NETWORKS = 60  # whole networks: half calibrate the table, half are its certificate


def wants_own_table(config: Config) -> bool:
    """Whether the run is for the machine that the command runs on, and no table of it is given."""
    return config.device.partition("/")[0] == THIS and not config.table


def with_own_tables(config: Config, runs: Path, progress: Progress, *, dry_run: bool) -> Config:
    """The configuration with a table of this machine wherever it names this machine: as its device, or in its list of devices.

    Args:
        config, runs, progress, dry_run: see :func:`table_of_this_machine`.
    """
    if config.family.devices:
        devices = []
        for device in config.family.devices:
            one = dataclasses.replace(config, device=device, table="")
            measured = table_of_this_machine(one, runs, progress, dry_run=dry_run).table if wants_own_table(one) else device
            devices.append(measured)
        return dataclasses.replace(config, family=dataclasses.replace(config.family, devices=tuple(devices)))
    return table_of_this_machine(config, runs, progress, dry_run=dry_run) if wants_own_table(config) else config


def table_of_this_machine(config: Config, runs: Path, progress: Progress, *, dry_run: bool) -> Config:
    """The configuration with a freshly measured table, or with one that an earlier run measured for the same blocks.

    A table that another machine or another version of the runtime measured is left where it is, and one of this place made.

    Args:
        config: with ``device=this``, or ``this/RUNTIME-DTYPE-THREADSt``.
        runs: folder of the run folders; the table lies in ``tables`` below it.
        progress: display.
        dry_run: do not measure.

    Raises:
        RequestError: a dry run without a table, or no such runtime or dtype to measure.
        UnknownNameError: what follows ``this/`` names no table.
        TableError: the table that is there cannot be read.
        MeasurementError: the measurement failed.
    """
    identity = identity_of(config.device)
    space = make_space(config)
    references = reference_agents(space.frame_shape, space.num_actions, space.parts)
    ops = list(dict.fromkeys([*space.all_ops(), *(op for blocks in references.values() for op in blocks)]))
    generator = Streams(0).torch("arch")
    networks = [a.network().to_json() for a in spread_networks(space, min(NETWORKS, space.size), generator)]
    work = json.dumps({"space": space.name, "ops": [op.to_dict() for op in ops], "networks": networks}).encode()
    kind = "" if identity == Identity() else f"{identity}-"
    settings = Settings(threads=identity.threads)
    plain = Path(runs) / "tables" / f"{THIS}-{kind}{hashlib.sha256(work).hexdigest()[:12]}.jsonl"
    out = _file_of_this_place(plain, identity.runtime, settings)
    if out != plain:
        progress.note(f"{plain} was measured on another machine or runtime version: this one has {out}")
    if not out.is_file():
        if dry_run:
            raise RequestError(
                "this machine has no table for these blocks yet, so there is nothing to plan with. The command without --dry-run "
                "measures it first (minutes, once); or plan for a device of `cosearch list devices`"
            )
        make_folder(out.parent)
        worklist = out.with_suffix(".worklist.json")
        write_bytes_atomic(worklist, work)
        progress.note(f"measuring {len(ops)} blocks and {len(networks)} networks on this machine (minutes, once) -> {out}")
        request = MeasureRequest(
            out=out,
            device=THIS,
            worklists=(str(worklist),),
            runtime=identity.runtime,
            dtype=identity.dtype,
            settings=settings,
        )
        run(request, command=f"cosearch --device {config.device}")
    return dataclasses.replace(config, table=str(out))


def _file_of_this_place(plain: Path, runtime: str, settings: Settings) -> Path:
    """The file itself, or another name beside it where a table of another machine or runtime version is there."""
    if not plain.is_file():
        return plain
    place = {**place_here(runtime), "provider": settings.provider, "nchw": settings.nchw}
    if is_same_place(recorded_place(read_table(plain).header), place):
        return plain
    digest = hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()[:8]
    return plain.with_name(f"{plain.stem}-{digest}.jsonl")
