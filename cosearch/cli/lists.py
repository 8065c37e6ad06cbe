"""Options that take one value, or several with commas: then a run makes one agent for each."""

from __future__ import annotations

from latency_tables.errors import ConfigError


def device_options(device: str | None) -> dict[str, object]:
    """Configuration values of ``--device``.

    Args:
        device: one name, or several with commas; None: not given.
    """
    names = [] if device is None else [name.strip() for name in device.split(",")]
    return {"family.devices": names} if len(names) > 1 else {"device": device}


def target_options(targets_ms: str | None) -> dict[str, object]:
    """Configuration values of ``--latency-target-ms``.

    Args:
        targets_ms: one number of milliseconds, or several with commas; None: not given.

    Raises:
        ConfigError: one of them is no number.
    """
    if targets_ms is None:
        return {}
    try:
        targets_s = [float(part) / 1e3 for part in targets_ms.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--latency-target-ms must be a number of milliseconds, or several with commas such as 0.2,0.4, got {targets_ms!r}"
        ) from error
    if len(targets_s) > 1:
        return {"family.latency_targets_s": targets_s}
    return {"objective.latency_target_s": targets_s[0]}
