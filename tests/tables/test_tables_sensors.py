"""Sensors on a fake sysfs: the right rail, the right unit, None and never 0."""

import itertools
import time
from pathlib import Path

import pytest

from latency_tables.board.core import _energy_of
from latency_tables.board.sensors import (
    PowerSource,
    average_power,
    find_power_source,
    fingerprint,
    integrate,
    machine_state,
    parse_pmic,
    pmic_power_w,
    throttled,
)


def put(root: Path, files: dict) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return str(root)


def test_jetson_total_rail_in_watts(tmp_path):
    hwmon = "sys/bus/i2c/devices/1-0040/hwmon/hwmon3"
    root = put(tmp_path, {
        f"{hwmon}/in1_label": "VDD_IN", f"{hwmon}/in1_input": 5000, f"{hwmon}/curr1_input": 1200,
        f"{hwmon}/in2_label": "VDD_CPU_GPU_CV", f"{hwmon}/in2_input": 5000, f"{hwmon}/curr2_input": 400,
        f"{hwmon}/in3_label": "NC", f"{hwmon}/in7_label": "sum of shunt voltages",
    })  # fmt: skip
    source, rail = find_power_source(root)
    assert rail == "VDD_IN" and source.kind == "power" and source.read() == pytest.approx(6.0)
    (tmp_path / hwmon / "curr1_input").unlink()
    assert source.read() is None


def test_older_jetson_and_thor(tmp_path):
    iio = "sys/bus/i2c/devices/6-0040/iio:device0"
    root = put(tmp_path / "nano", {f"{iio}/rail_name_0": "POM_5V_IN", f"{iio}/in_power0_input": 3250})
    assert find_power_source(root)[0].read() == pytest.approx(3.25)
    hwmon = "sys/bus/i2c/devices/2-0044/hwmon/hwmon1"
    root = put(tmp_path / "thor", {f"{hwmon}/name": "ina238", f"{hwmon}/power1_input": 12_500_000})
    assert find_power_source(root)[0].read() == pytest.approx(12.5)


def test_rails_without_a_total_are_not_summed(tmp_path):
    hwmon = "sys/bus/i2c/devices/1-0040/hwmon/hwmon3"
    root = put(tmp_path, {f"{hwmon}/in1_label": "GPU", f"{hwmon}/in1_input": 5000, f"{hwmon}/curr1_input": 1200})
    source, reason = find_power_source(root)
    assert source is None and "GPU" in reason
    assert find_power_source(str(tmp_path / "nothing")) == (None, "no power sensor is readable")


def test_a_jetson_agx_orin_has_no_total(tmp_path):
    """Its VIN_SYS_5V0 feeds the 5 V inputs and outputs only; the module draws from the rails of the processors as well."""
    first, second = (f"sys/bus/i2c/devices/1-004{n}/hwmon/hwmon{n}" for n in (0, 1))
    rails = {first: ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), second: ("NC", "VDDQ_VDD2_1V8AO", "NC")}
    for hwmon, labels in rails.items():
        for number, label in enumerate(labels, 1):
            files = {"in{}_label": label, "in{}_input": 5000, "curr{}_input": 700}
            root = put(tmp_path, {f"{hwmon}/{name.format(number)}": value for name, value in files.items()})
    source, reason = find_power_source(root)
    assert source is None and reason.startswith("no known total rail among") and "VIN_SYS_5V0" in reason


ZONE = "sys/class/powercap/intel-rapl:{}"


def sockets(root: Path, *joules: float, ranges_j=(10, 30)) -> str:
    """A machine with so many sockets, each of which has used so many joules; and zones that are parts of them."""
    for number, (value_j, range_j) in enumerate(zip(joules, ranges_j)):
        zone = ZONE.format(number)
        put(root, {f"{zone}/name": f"package-{number}", f"{zone}/energy_uj": round(value_j * 1e6),
                   f"{zone}/max_energy_range_uj": range_j * 1_000_000, f"{zone}:0/name": "dram",
                   f"{zone}:0/energy_uj": 77_000_000})  # fmt: skip
    return put(root, {f"{ZONE.format(len(joules))}/name": "psys", f"{ZONE.format(len(joules))}/energy_uj": 99_000_000})


@pytest.mark.parametrize(
    "seen_j, watts",
    [
        (((5.0,), (7.0,), (9.0,)), 2.0),
        (((8.0,), (9.5,), (1.0,)), 1.5),  # the counter began again at 10 J
        (((5.0, 2.0), (6.0, 6.0), (7.0, 10.0)), 5.0),
        (((8.0, 2.0), (9.5, 6.0), (1.0, 10.0)), 5.5),  # the first began again, the second went on
        (((8.0, 26.0), (9.5, 29.0), (1.0, 2.0)), 1.5 + 3.0),  # both, each at its own range
        (((8.0, 26.0), (1.0, 29.0), (4.0, 2.0)), 3.0 + 3.0),
    ],
)
def test_all_sockets_count_and_each_counter_begins_again_at_its_own_range(seen_j, watts, tmp_path):
    source, rail = find_power_source(sockets(tmp_path, *seen_j[0]))
    assert source.kind == "counter" and rail == " + ".join(f"package-{n}" for n in range(len(seen_j[0])))
    assert source.name == f"RAPL {rail}"
    readings = []
    for second, joules in enumerate(seen_j):
        sockets(tmp_path, *joules)
        readings.append((float(second), source.read()))
    assert integrate(readings, source) == pytest.approx(watts)


def test_a_socket_that_does_not_say_its_energy_makes_it_unknown_and_not_less(tmp_path):
    source, _ = find_power_source(sockets(tmp_path, 5.0, 6.0))
    (tmp_path / ZONE.format(1) / "max_energy_range_uj").unlink()
    assert source.read() == pytest.approx(11.0)
    (tmp_path / ZONE.format(1) / "energy_uj").write_text("1000000")
    assert source.read() is None, "it began again, and nobody knows where"
    (tmp_path / ZONE.format(1) / "energy_uj").unlink()
    assert source.read() is None and find_power_source(str(tmp_path)) == (None, "no power sensor is readable")


def test_power_is_integrated_by_trapezoids():
    source = PowerSource("x", "power", lambda: 1.0)
    assert integrate([(0.0, 0.0), (1.0, 2.0), (3.0, 4.0)], source) == pytest.approx((1.0 + 6.0) / 3)
    assert integrate([(0.0, 1.0)], source) is None


def test_average_power_and_energy_above_idle():
    assert average_power(PowerSource("x", "power", lambda: 4.0), lambda: time.sleep(0.001), 0.3).power_w == pytest.approx(4.0)
    assert average_power(PowerSource("x", "power", lambda: None), lambda: time.sleep(0.001), 0.05) is None
    phase = itertools.count()
    busy = {"on": False}

    def read():
        next(phase)
        return 5.0 if busy["on"] else 3.0

    def call():
        busy["on"] = True
        time.sleep(0.002)
        busy["on"] = False

    energy = _energy_of(PowerSource("x", "power", read), call, 0.2)
    assert energy["power_w"] > energy["idle_w"] + 0.1
    assert energy["idle_w"] == pytest.approx(3.0, abs=0.3) and energy["energy_j"] > 0
    flat = _energy_of(PowerSource("x", "power", lambda: 3.0), lambda: time.sleep(0.001), 0.3)
    assert flat["energy_j"] is None and "not above idle" in flat["reason"]


def test_state_of_a_board_and_of_a_machine_that_says_nothing(tmp_path):
    cpu = "sys/devices/system/cpu/cpu0/cpufreq"
    root = put(tmp_path, {f"{cpu}/scaling_cur_freq": 1_500_000, f"{cpu}/scaling_governor": "performance",
                          "sys/class/thermal/thermal_zone0/temp": 48_500, "proc/loadavg": "0.42 0.1 0.1 1/100 5"})  # fmt: skip
    state = machine_state(root)
    assert state["clock_hz"] == [1.5e9] and state["governor"] == ["performance"]
    assert state["temperature_c"] == [48.5] and state["load"] == 0.42
    silent = machine_state(str(tmp_path / "nothing"))
    assert {value for name, value in silent.items() if name != "throttled"} == {None}


def test_throttling_bits_of_a_pi(tmp_path):
    command = tmp_path / "vcgencmd"
    command.write_text("#!/bin/sh\necho throttled=0x50005\n")
    command.chmod(0o755)
    assert throttled(str(command)) == ["under-voltage", "throttled", "under-voltage has occurred", "throttled has occurred"]
    assert throttled(str(tmp_path / "absent")) is None


def test_fingerprint_hides_the_serial(tmp_path):
    root = put(tmp_path, {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd08\nSerial\t: 00deadbeef",
                          "proc/device-tree/model": "Raspberry Pi 4 Model B\0"})  # fmt: skip
    machine = fingerprint(root)
    assert machine["model"] == "Raspberry Pi 4 Model B" and machine["isa"] == ["asimd", "sve"] and machine["cpu"] == "0xd08"
    assert "deadbeef" not in str(machine) and len(machine["serial_sha256"]) == 16


PMIC = """\
   3V7_WL_SW_A current(0)=0.10000000A
   DDR_VDD2_A current(3)=0.02000000A
   VDD_CORE_A current(7)=1.50000000A
   3V7_WL_SW_V volt(8)=3.70000000V
   DDR_VDD2_V volt(11)=1.10000000V
   VDD_CORE_V volt(15)=0.80000000V
   EXT5V_V volt(24)=5.10000000V
   BATT_V volt(25)=0.00000000V
"""


def test_raspberry_pi_5_power_is_the_sum_over_rails_with_volts_and_amps():
    assert parse_pmic(PMIC) == pytest.approx(0.1 * 3.7 + 0.02 * 1.1 + 1.5 * 0.8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Command not registered",
        "   EXT5V_V volt(24)=5.1V\n",  # no rail has amps
        PMIC.replace("   VDD_CORE_V volt(15)=0.80000000V\n", ""),  # amps without volts: unknown, not less
        PMIC.replace("1.50000000A", "1.5.0A"),
        PMIC.replace("current(7)=1.50000000A", "current(7)=1.50000000V"),
    ],
)
def test_what_the_chip_does_not_say_is_unknown_and_never_zero(text):
    assert parse_pmic(text) is None


def test_the_chip_is_found_through_its_program_and_named_for_what_it_is(tmp_path, monkeypatch):
    program = tmp_path / "vcgencmd"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = pmic_read_adc ] && cat <<'END'\n{PMIC}END\n")
    program.chmod(0o755)
    assert pmic_power_w(str(program)) == pytest.approx(1.592) and pmic_power_w(str(tmp_path / "absent")) is None
    assert find_power_source(str(tmp_path))[0] is None
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    source, rail = find_power_source(str(tmp_path))
    assert rail == "PMIC" and "under-reads" in source.name and source.kind == "power" and source.sample_s == 0.1
    seen = average_power(source, lambda: None, 0.35)
    assert seen.power_w == pytest.approx(1.592) and seen.samples <= 6
