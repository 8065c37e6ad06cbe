"""Statistics of observations that lie beside a policy: mean and variance (or standard deviation) in safetensors, npz or JSON.

The files of the packages name them ``mean``/``var`` (stable-baselines3), ``running_mean``/``running_variance`` (skrl, rl_games)
and ``_mean``/``_var``/``_std`` (rsl_rl), alone or behind the name of a module; each of these is read. Pickles are not loaded.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from cosearch.rl.foreign.understood import Normaliser
from latency_tables.errors import ConfigError, CosearchError
from latency_tables.text.reading import read_json

NAMES = {
    "mean": ("mean", "running_mean", "_mean", "obs_mean"),
    "var": ("var", "variance", "running_var", "running_variance", "_var", "obs_var"),
    "std": ("std", "_std", "obs_std"),
    "clip": ("clip", "clip_obs", "clip_threshold"),
    "epsilon": ("epsilon", "eps"),
}
EPSILON = 1e-8  # added to the variance, as stable-baselines3's VecNormalize and Gymnasium's wrapper do
RSL_RL_EPSILON = 1e-2  # added to the deviation; its statistics do not hold it
CONVERT = (
    "numpy.savez('normaliser.npz', mean=v.obs_rms.mean, var=v.obs_rms.var, clip=v.clip_obs) where v is the VecNormalize that you "
    "loaded yourself"
)


def read_normaliser(path: Path, frame_shape: tuple[int, ...], layouts: Sequence[str | None] = ()) -> Normaliser:
    """Read the statistics that a policy's observations are normalised with.

    Args:
        path: a ``.safetensors``, ``.npz`` or ``.json`` file with ``mean`` and ``var`` or ``std``, each of one number a feature or
            one for all; and ``clip`` and ``epsilon`` where they are other than none and 1e-8. The epsilon is added to the
            variance where there is one, else to the standard deviation. Of rsl_rl's statistics (``_std`` is there) the standard
            deviation is taken, and the epsilon is 1e-2.
        frame_shape: of the observations. Statistics of images are of this shape, or of the same with the channels first.
        layouts: orders of images that the policy's file can take; flat statistics of images do not tell theirs, and are read with
            the channels last where ``channels_first`` is none of these.

    Raises:
        ConfigError: it is a pickle, cannot be read, or holds other numbers.
    """
    values = _values(path)
    mean = values.get("mean")
    if mean is None or ("var" not in values) == ("std" not in values):
        raise ConfigError(
            f"{path}: expected mean and one of var and std, got {', '.join(sorted(values)) or 'none of them'}. Known names: "
            f"{'; '.join(', '.join(names) for names in NAMES.values())}"
        )
    epsilon = float(_single(values, "epsilon", EPSILON, path))
    with np.errstate(invalid="ignore"):  # of a negative variance, which is refused below
        deviation = np.sqrt(values["var"] + epsilon) if "var" in values else values["std"] + epsilon
    size = int(np.prod(frame_shape))
    for name, array in (("mean", mean), ("var or std", deviation)):
        if array.size not in (1, size):
            raise ConfigError(f"{path}: {name} has {array.size} numbers, the observations {list(frame_shape)} have {size}")
        if not np.isfinite(array).all():
            raise ConfigError(f"{path}: {name} is NaN or infinite, or the variance is negative")
    if not (deviation > 0).all():
        raise ConfigError(f"{path}: a standard deviation of 0 or below divides nothing; give an epsilon")
    clip = _single(values, "clip", np.inf, path)
    if not clip > 0:
        raise ConfigError(f"{path}: clip must be above 0, got {clip}")
    return Normaliser(
        mean=_in_order(path, "mean", mean, frame_shape, layouts),
        deviation=_in_order(path, "var or std", deviation, frame_shape, layouts),
        clip=float(clip) if np.isfinite(clip) else None,
        source=path.name,
    )


def _in_order(
    path: Path, name: str, array: np.ndarray, frame_shape: tuple[int, ...], layouts: Sequence[str | None]
) -> tuple[float, ...]:
    """The numbers of an array in the order of a frame's, whose channels are last."""
    if array.size == 1 or len(frame_shape) != 3 or frame_shape[2] == 1:
        return tuple(array.ravel().tolist())
    h, w, c = frame_shape
    shape = array.shape
    while len(shape) > 3 and shape[0] == 1:  # of a batch of one
        shape = shape[1:]
    if shape == frame_shape or (len(shape) == 1 and "channels_first" not in layouts):
        return tuple(array.ravel().tolist())
    if shape == (c, h, w):
        return tuple(array.reshape(shape).transpose(1, 2, 0).ravel().tolist())
    raise ConfigError(
        f"{path}: {name} has the shape {list(shape)}, expected {[h, w, c]}, or {[c, h, w]} with the channels first: the order of "
        "the numbers must be known. Save the array with that shape"
    )


def _single(values: Mapping[str, np.ndarray], key: str, default: float, path: Path) -> float:
    array = values.get(key, np.array(default))
    if array.size != 1:
        raise ConfigError(f"{path}: {key} must be one number, got {array.size}")
    return float(array.ravel()[0])


def _values(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file under our own names, float64."""
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth"):
        raise ConfigError(
            f"{path}: pickles are not loaded, they can run any code. Convert it where you trust it: {CONVERT}; then "
            "--normaliser normaliser.npz"
        )
    if path.suffix not in (".safetensors", ".npz", ".json"):
        raise ConfigError(f"{path}: expected a normaliser as .safetensors, .npz or .json, got {path.suffix or 'no ending'}")
    try:
        found = _read(path)
    except CosearchError:
        raise
    except (OSError, EOFError, ValueError, TypeError, KeyError, SafetensorError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read as a normaliser: {' '.join(str(error).split())[:200]}") from error
    named: dict[str, np.ndarray] = {}
    for key, array in found.items():
        last = key.rpartition(".")[2]
        ours = next((name for name, words in NAMES.items() if last in words), None)
        if ours is not None and ours in named and not np.array_equal(named[ours], array):
            raise ConfigError(f"{path}: two different entries are {ours}, the second one {key!r}; keep those of the observations")
        if ours is not None:
            named[ours] = np.asarray(array, np.float64)
    if any(key.rpartition(".")[2] == "_std" for key in found):  # rsl_rl, which keeps the variance, too
        named.pop("var", None)
        named.setdefault("epsilon", np.array(RSL_RL_EPSILON))
    elif "var" in named:
        named.pop("std", None)
    return named


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if path.suffix == ".json":
        content = read_json(path, "a normaliser", ConfigError)
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: expected an object with mean and var, got {type(content).__name__}")
        return {key: np.asarray(value, np.float64) for key, value in content.items() if value is not None}
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {key: np.asarray(archive[key], np.float64) for key in archive.files}
    return {key: np.asarray(value, np.float64) for key, value in load(path.read_bytes()).items()}
