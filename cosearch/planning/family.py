"""Several agents from one search: the configuration of each, and their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cosearch.config.family import FamilyConfig
from cosearch.config.run import Config
from latency_tables.errors import ConfigError
from latency_tables.opspec import Device
from latency_tables.table import load_table

MOST = 16  # agents of one run


def agent_configs(config: Config) -> list[Config]:
    """What each agent of a run would be asked for alone: every device with every target, devices outermost.

    Args:
        config: with at least one list in the section ``family``, and with absolute paths.

    Raises:
        ConfigError: an entry stands twice in a list, or there are more than ``MOST`` agents.
        TableError: a file among the devices is no table.
    """
    family = config.family
    for key, values in (("devices", family.devices), ("latency_targets_s", family.latency_targets_s)):
        if len(set(values)) < len(values):
            raise ConfigError(f"family.{key} names one of these twice: {', '.join(map(str, values))}")
    count = max(1, len(family.devices)) * max(1, len(family.latency_targets_s))
    if count > MOST:
        raise ConfigError(
            f"{max(1, len(family.devices))} devices with {max(1, len(family.latency_targets_s))} targets each make {count} "
            f"agents, at most {MOST} come from one search: leave some out"
        )
    alone = dataclasses.replace(config, family=FamilyConfig())
    on_devices = [_on(alone, device) for device in family.devices] or [alone]
    targets = family.latency_targets_s or (config.objective.latency_target_s,)
    return [
        dataclasses.replace(one, objective=dataclasses.replace(one.objective, latency_target_s=target))
        for one in on_devices
        for target in targets
    ]


def is_file(device: str) -> bool:
    """Whether an entry of ``family.devices`` is the path of a table."""
    return device.endswith(".jsonl")


def _on(config: Config, device: str) -> Config:
    if not is_file(device):
        return dataclasses.replace(config, device=device, table="")
    return dataclasses.replace(config, device=load_table(device).device.name, table=device)


def device_names(devices: Sequence[Device]) -> list[str]:
    """A short name for each device: its own, or with runtime, dtype and threads where another one has the same.

    Args:
        devices: one an agent; equal ones get equal names.
    """
    kinds = {device.table_name: device.name for device in devices}
    alike = [name for name in kinds.values() if list(kinds.values()).count(name) > 1]
    return [(device.table_name if device.name in alike else device.name).replace("/", "-") for device in devices]


def agent_names(config: FamilyConfig, devices: Sequence[Device], targets_s: Sequence[float]) -> list[str]:
    """Names of the agents, which are names of folders too: ``0.2ms``, ``jetson``, or ``jetson-0.2ms`` with both lists.

    Args:
        config: the lists.
        devices: of each agent.
        targets_s: of each agent, seconds.

    Raises:
        ConfigError: two agents would have the same name.
    """
    names = []
    for device, target_s in zip(device_names(devices), targets_s, strict=True):
        parts = [device] if config.devices else []
        names.append("-".join(parts + [f"{target_s * 1e3:g}ms"] * bool(config.latency_targets_s)))
    if len(set(names)) < len(names):
        raise ConfigError(f"two agents would have the same name: {', '.join(names)}; leave one of them out")
    return names
