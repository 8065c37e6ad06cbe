"""What a board can say about itself: power, clocks, temperature, throttling. Reads sysfs; a fake root makes it testable.

Power comes from the total input rail (INA3221 of a Jetson through hwmon or iio, INA238 of a Thor), from the energy
counters of all x86 packages (RAPL), as work may be pinned to any of them, or from the power-management chip of a
Raspberry Pi 5, which has no total: there the rails that have both volts and amps are summed, which reads less than the
supply gives, and the sensor's name says so. Elsewhere rails are never summed: a board without a known total rail has no
power, and no power is None, never 0. What cannot be read is None.
"""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")
SAMPLE_S, PMIC_SAMPLE_S = 0.01, 0.1  # the chip is asked through a program, which costs milliseconds
PMIC_LINE = re.compile(r"^\s*(\S+)_([AV])\s+(current|volt)\(\d+\)=(-?[0-9.]+)([AV])\s*$")


@dataclass(frozen=True)
class PowerSource:
    """A way to read power or energy.

    Attributes:
        name: sensor and rail, for the table header.
        kind: ``power`` (``read`` gives watts now) or ``counter`` (``read`` gives joules so far).
        read: the reading, or None if it failed. That of a counter does not start again.
        sample_s: seconds between readings.
    """

    name: str
    kind: str
    read: Callable[[], float | None]
    sample_s: float = SAMPLE_S


@dataclass(frozen=True)
class PowerReading:
    """Average power while something ran.

    Attributes:
        power_w: watts.
        window_s: how long it ran, seconds.
        calls: how often it was called.
        samples: readings of the sensor.
    """

    power_w: float
    window_s: float
    calls: float
    samples: float


def read_text(path: str) -> str | None:
    """The stripped content of a small file, or None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(65536).strip("\0\n ")
    except OSError:
        return None


def read_number(path: str) -> float | None:
    """The number in a small file, or None."""
    text = read_text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def find_power_source(root: str = "/") -> tuple[PowerSource | None, str]:
    """The board's total power.

    Returns:
        The source and its name, or None and the reason why there is none.
    """
    seen: list[str] = []
    for hwmon in sorted(glob.glob(os.path.join(root, "sys/bus/i2c/devices/*/hwmon/hwmon*"))):
        for label_path in sorted(glob.glob(os.path.join(hwmon, "in[0-9]*_label"))):
            label, channel = read_text(label_path) or "", os.path.basename(label_path)[2:-6]
            seen.append(label)
            volts, amps = os.path.join(hwmon, f"in{channel}_input"), os.path.join(hwmon, f"curr{channel}_input")
            if label in TOTAL_RAILS and read_number(volts) is not None and read_number(amps) is not None:
                return PowerSource(f"INA3221 {label}", "power", partial(_product, volts, amps, 1e-6)), label
        if (read_text(os.path.join(hwmon, "name")) or "").startswith("ina238"):
            path = os.path.join(hwmon, "power1_input")
            if read_number(path) is not None:
                return PowerSource("INA238 VIN", "power", partial(_scaled, path, 1e-6)), "VIN"
    for name_path in sorted(glob.glob(os.path.join(root, "sys/bus/i2c/devices/*/iio:device*/rail_name_*"))):
        label, channel = read_text(name_path) or "", name_path.rsplit("_", 1)[1]
        seen.append(label)
        path = os.path.join(os.path.dirname(name_path), f"in_power{channel}_input")
        if label in TOTAL_RAILS and read_number(path) is not None:
            return PowerSource(f"INA3221 {label}", "power", partial(_scaled, path, 1e-3)), label
    zones = sorted(glob.glob(os.path.join(root, "sys/class/powercap/intel-rapl:[0-9]*")))
    packages = [(zone, name) for zone in zones for name in [read_text(os.path.join(zone, "name")) or ""] if name[:7] == "package"]
    counters = PackageCounters([zone for zone, _ in packages])
    if packages and counters.read() is not None:
        names = " + ".join(name for _, name in packages)
        return PowerSource(f"RAPL {names}", "counter", counters.read), names
    if pmic_power_w() is not None:
        return PowerSource("PMIC sum of rails, under-reads the supply", "power", pmic_power_w, sample_s=PMIC_SAMPLE_S), "PMIC"
    if seen:
        return None, f"no known total rail among {', '.join(sorted(set(seen)))}"
    return None, "no power sensor is readable"


class PackageCounters:
    """The energy counters of x86 packages as one that does not start again: each is followed over its own range.

    Args:
        zones: their folders in powercap.
    """

    def __init__(self, zones: Sequence[str]) -> None:
        self._zones = zones
        self._last_j: list[float] = []
        self._sum_j = 0.0

    def read(self) -> float | None:
        """Joules of all packages so far, or None if one cannot be read, or began again and does not say where."""
        seen = [_scaled(os.path.join(zone, "energy_uj"), 1e-6) for zone in self._zones]
        now_j = [value for value in seen if value is not None]
        if len(now_j) < len(seen):
            return None
        steps = [now - last for now, last in zip(now_j, self._last_j or [0.0] * len(now_j))]
        self._last_j = now_j
        for zone, step in zip(self._zones, steps):
            range_j = 0.0 if step >= 0 else _scaled(os.path.join(zone, "max_energy_range_uj"), 1e-6)
            if range_j is None:
                return None
            self._sum_j += step + range_j
        return self._sum_j


def pmic_power_w(command: str = "vcgencmd") -> float | None:
    """Watts over all rails of a Raspberry Pi 5's power-management chip; None on other boards."""
    try:
        text = subprocess.run([command, "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_pmic(text)


def parse_pmic(text: str) -> float | None:
    """Watts in what ``vcgencmd pmic_read_adc`` prints: volts times amps of each rail that has both; None if none has.

    Lines look like ``VDD_CORE_A current(7)=1.50000000A`` and ``VDD_CORE_V volt(15)=0.87500000V``. Rails with volts only
    (the 5 V input, the battery) carry no power figure. A rail with amps but no volts makes the answer unknown.
    """
    volts: dict[str, float] = {}
    amps: dict[str, float] = {}
    for line in text.splitlines():
        parts = PMIC_LINE.match(line)
        if not parts:
            continue
        rail, letter, what, value, unit = parts.groups()
        if letter != unit or (what == "current") != (unit == "A"):
            return None
        try:
            (amps if unit == "A" else volts)[rail] = float(value)
        except ValueError:
            return None
    if not amps or not set(amps) <= set(volts):
        return None
    return sum(volts[rail] * amps[rail] for rail in amps)


def average_power(source: PowerSource, work: Callable[[], object], seconds: float) -> PowerReading | None:
    """Run ``work`` again and again for ``seconds``: the average power meanwhile, or None if a reading failed."""
    readings: list[tuple[float, float | None]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.is_set():
            readings.append((time.perf_counter(), source.read()))
            stop.wait(source.sample_s)

    sampler = threading.Thread(target=sample, daemon=True)
    start = time.perf_counter()
    sampler.start()
    calls = 0
    while time.perf_counter() - start < seconds:
        work()
        calls += 1
    window = time.perf_counter() - start
    stop.set()
    sampler.join()
    readings.append((time.perf_counter(), source.read()))
    known = [(at_s, value) for at_s, value in readings if value is not None]
    power_w = integrate(known, source) if len(known) == len(readings) else None
    return None if power_w is None else PowerReading(power_w, window, float(calls), float(len(readings)))


def integrate(readings: Sequence[tuple[float, float]], source: PowerSource) -> float | None:
    """Average watts of ``(time_s, reading)``: trapezoid over powers, or the growth of a counter."""
    span = readings[-1][0] - readings[0][0]
    if len(readings) < 3 or span <= 0:
        return None
    if source.kind == "counter":
        return (readings[-1][1] - readings[0][1]) / span
    return sum((t1 - t0) * (a + b) / 2 for (t0, a), (t1, b) in zip(readings, readings[1:])) / span


def machine_state(root: str = "/") -> dict[str, object]:
    """Clocks, governor, temperatures and throttling now; None where the machine does not say."""
    cpu = os.path.join(root, "sys/devices/system/cpu")
    clocks = [read_number(path) for path in sorted(glob.glob(f"{cpu}/cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    governors = sorted({read_text(path) or "" for path in glob.glob(f"{cpu}/cpu[0-9]*/cpufreq/scaling_governor")})
    zones = [read_number(path) for path in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*/temp")))]
    cooling = [read_number(path) for path in sorted(glob.glob(os.path.join(root, "sys/class/thermal/cooling_device*/cur_state")))]
    load = read_text(os.path.join(root, "proc/loadavg"))
    return {
        "clock_hz": [value * 1e3 for value in clocks if value is not None] or None,
        "governor": governors or None,
        "temperature_c": [value / 1e3 for value in zones if value is not None] or None,
        "cooling_state": [value for value in cooling if value is not None] or None,
        "throttled": throttled(),
        "load": None if not load else float(load.split()[0]),
    }


def throttled(command: str = "vcgencmd") -> list[str] | None:
    """What a Raspberry Pi's firmware says about under-voltage and throttling; None on other boards."""
    names = {0: "under-voltage", 1: "capped", 2: "throttled", 3: "soft limit"}
    try:
        answer = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=5, check=True).stdout
        bits = int(answer.strip().split("=")[1], 16)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    now = [name for bit, name in names.items() if bits >> bit & 1]
    return now + [f"{name} has occurred" for bit, name in names.items() if bits >> (bit + 16) & 1]


def fingerprint(root: str = "/") -> dict[str, object]:
    """What the machine is, without names or numbers that identify the single unit (the serial is hashed)."""
    info = read_text(os.path.join(root, "proc/cpuinfo")) or ""
    fields: dict[str, str] = {}
    for line in info.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    known = (
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "amx_tile",
        "amx_int8",
        "asimd",
        "asimddp",
        "fphp",
        "sve",
        "i8mm",
        "bf16",
    )
    serial = read_text(os.path.join(root, "proc/device-tree/serial-number")) or fields.get("Serial")
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "model": read_text(os.path.join(root, "proc/device-tree/model")),
        "cpu": fields.get("model name") or fields.get("CPU part"),
        "cores": os.cpu_count(),
        "isa": sorted(flags & set(known)),
        "virtual": "hypervisor" in flags,
        "serial_sha256": hashlib.sha256(serial.encode()).hexdigest()[:16] if serial else None,
    }


def _scaled(path: str, factor: float) -> float | None:
    value = read_number(path)
    return None if value is None else value * factor


def _product(volts_path: str, amps_path: str, factor: float) -> float | None:
    millivolts, milliamps = read_number(volts_path), read_number(amps_path)
    return None if millivolts is None or milliamps is None else millivolts * milliamps * factor
