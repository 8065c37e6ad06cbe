"""A bundle on its device: copied there over SSH, its self-test run with the device's own Python.

Copied as one zip file that ``cat`` writes and the device's Python unpacks, into a folder that is named by its content: what is
there whole is not sent again, and a copy that was cut off is begun anew. Nothing listens.
"""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

from cosearch.deploy.bundle.contract import CHANNELS_FIRST, Contract
from cosearch.deploy.bundle.stored import read_array
from cosearch.space.ends import LEAST_ALLOWED
from latency_tables.errors import CosearchError, MeasurementError, MissingExtraError, ParityError, RequestError
from latency_tables.measuring.remote import Location
from latency_tables.measuring.rpc import TrackerConnection
from latency_tables.measuring.ssh import LAST_LETTERS, LostBoard, run_on_board

FOLDER = ".cosearch"
SELF_TEST_S = 600.0


def pack(bundle: Path) -> tuple[str, bytes]:
    """A bundle as a zip file, the same bytes for the same files, and the name of its folder on a device.

    Args:
        bundle: the folder.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in bundle.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            entry = zipfile.ZipInfo(path.relative_to(bundle).as_posix(), date_time=(2020, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    data = buffer.getvalue()
    return f"agent-{hashlib.sha256(data).hexdigest()[:12]}", data


def copy_bundle(bundle: Path, location: Location) -> str:
    """Put a bundle on a board; one that is there whole is not sent again.

    Args:
        bundle: the folder.
        location: with a ``host``.

    Returns:
        Its folder there, relative to the home directory.

    Raises:
        LostBoard: the connection ended; try again.
        RequestError: the host key, the login or the name of the board is wrong.
        MissingExtraError: the board has no such Python.
        DiskFullError: its disk is full.
        MeasurementError: the copy failed for another reason.
    """
    name, data = pack(bundle)
    folder = f"{FOLDER}/{name}"
    place, python = shlex.quote(folder), shlex.quote(location.python)
    there = _on(location, f"if test -f {place}/complete; then echo whole; fi; {python} -c ''")
    if "whole" in there.split():
        return folder
    _on(
        location,
        f"mkdir -p {FOLDER} && cat > {place}.zip && rm -rf {place}.part && {python} -m zipfile -e {place}.zip {place}.part && "
        f"rm -rf {place} && mv {place}.part {place} && touch {place}/complete && rm {place}.zip",
        data,
    )
    return folder


def self_test_there(folder: str, location: Location) -> str:
    """Run the self-test of a bundle that was copied to a board.

    Args:
        folder: what :func:`copy_bundle` returned.
        location: with a ``host``.

    Returns:
        The line that says how well it went.

    Raises:
        LostBoard: the connection ended; try again.
        MissingExtraError: numpy or onnxruntime is missing there.
        RequestError: the board's onnxruntime cannot load the agent.
        ParityError: the outputs differ from the stored ones.
    """
    command = f"{shlex.quote(location.python)} {shlex.quote(folder)}/run_agent.py --self-test"
    try:
        return _on(location, command, timeout_s=SELF_TEST_S).strip()
    except (LostBoard, RequestError):
        raise
    except MeasurementError as error:
        raise explained(str(error), str(location.host)) from error


def self_test_here(bundle: Path) -> str:
    """Run the self-test of a bundle on this machine, in a Python process of its own.

    Args:
        bundle: the folder.

    Returns:
        The line that says how well it went.

    Raises:
        RequestError: onnxruntime is missing or cannot load the agent.
        ParityError: the outputs differ from the stored ones.
        MeasurementError: it did not end.
    """
    command = [sys.executable, str(bundle / "run_agent.py"), "--self-test"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"the self-test on this machine took more than {SELF_TEST_S:g} s: see what `{shlex.join(command)}` waits for"
        ) from error
    if done.returncode:
        raise explained(" ".join(done.stderr.split())[-LAST_LETTERS:], "this machine")
    return done.stdout.strip()


def self_test_by_rpc(core: TrackerConnection, name: str, bundle: Path, contract: Contract) -> str:
    """Run the stored observations through a library that was loaded on a device of a TVM RPC tracker.

    Args:
        core: the session.
        name: of the loaded library.
        bundle: has the stored observations and outputs.
        contract: names and tolerance.

    Returns:
        The line that says how well it went.

    Raises:
        LostBoard: the session ended; try again.
        ParityError: an output differs from the stored one.
        RunFolderError: the stored ones are damaged.
    """
    folder, worst = bundle / "self_test", 0.0
    stored = {name: read_array(folder / f"{name}.npy") for name in ("observations", *contract.stored_outputs)}
    seen = stored["observations"]
    if contract.environment_layout == CHANNELS_FIRST:  # the library was made from the exported file, whose channels are last
        seen = np.moveaxis(seen, 1, -1)
    for i, observation in enumerate(seen):
        core.bind(name, observation[None])
        for output, found in zip(contract.output_names, core.outputs(name)):
            if output not in contract.stored_outputs:
                continue
            forbidden = (output == "logits") & (stored[output] <= LEAST_ALLOWED)  # their size says nothing of the others
            allowed = contract.tolerance * max(1.0, float(np.abs(np.where(forbidden, 0.0, stored[output])).max()))
            difference = float(np.abs(found.reshape(stored[output][i].shape) - stored[output][i]).max())
            worst = max(worst, difference / allowed)
            if not difference <= allowed:  # also true for NaN
                raise ParityError(
                    f"the self-test failed on {core.location.tracker_key}: observation {i}: {output} differs by "
                    f"{difference:.3g}, at most {allowed:.3g} is allowed"
                )
    return f"ok: {len(stored['observations'])} observations, largest difference {worst:.2g} of what is allowed"


def explained(said: str, where: str) -> CosearchError:
    """The error that a failed self-test amounts to.

    Args:
        said: what ``run_agent.py`` said, and where it came by SSH what that added.
        where: the device.
    """
    said = re.sub(r".*?error: ", "", said, count=1)
    if "a package is missing" in said:
        return MissingExtraError(f"{where}: {said}")
    if "cannot load" in said:
        return RequestError(f"{where}: {said}. Install a newer onnxruntime there: python3 -m pip install -U onnxruntime")
    return ParityError(f"the self-test failed on {where}: {said}")


def _on(location: Location, command: str, data: bytes = b"", *, timeout_s: float = 120.0) -> str:
    return run_on_board(str(location.host), location.ssh_options, command, data, timeout_s=timeout_s)
