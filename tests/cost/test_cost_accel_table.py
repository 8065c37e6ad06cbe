"""A design in the role of a table: its identity, its record and its messages, written out."""

import dataclasses
import hashlib
import json

import pytest
import torch
from test_cost_accel import SMALL, begun, faked, fixed, sampled, space, two_chunks, with_array

from accel_models import block_costs, load_design
from cosearch.cost.accel_cost import AccelCost
from cosearch.cost.accel_table import AccelTable, design_records, device_of
from cosearch.cost.accelerator import Accelerator
from latency_tables.errors import DesignError, RequestError, ShapeError

assert space  # the fixture is used by its name


def test_messages_name_the_design_the_platform_and_what_to_do(space, monkeypatch):
    def message(call, error):
        with pytest.raises(error) as caught:
            call()
        return str(caught.value)

    base = load_design("zc706")
    too_big = dataclasses.replace(base, platform=dataclasses.replace(base.platform, dsp_limit=100, bram18_limit=10))
    assert message(AccelTable(too_big).check_limits, DesignError) == (
        "design 'zc706' does not fit its own platform zc706: 900 DSP, the limit is 100; 360 BRAM18, the limit is 10. "
        "Make its chunks smaller, or raise the platform's limits"
    )
    AccelTable(base).check_limits()
    small = with_array(4, 4, size=8)
    held = f"chunk 0 of design '4x4' does not hold every candidate of space {space.name!r}: "
    assert message(lambda: fixed(space, small), DesignError).startswith(held + "layer ")
    ops = sampled(space, 1)[0].ops()
    assert message(lambda: AccelTable(small).predict(ops), DesignError).startswith(
        "the network does not fit design '4x4': layer "
    )
    faked(monkeypatch, None)
    useless = Accelerator(space, small, SMALL, lambda number: number)
    assert message(lambda: useless.begin({}), DesignError) == (
        f"no design within the limits of zc706 holds the smallest network of space {space.name!r} in 560 evaluations; "
        "raise accel.evaluations, lower accel.chunks, or name a larger platform"
    )
    faked(monkeypatch, with_array(4, 4), None)
    accelerator = begun(space)
    accelerator.base = too_big
    assert message(lambda: accelerator.reference(ops, 3), DesignError) == (
        f"no design within the limits of zc706 holds the reference agent of {len(ops)} blocks; name a larger platform"
    )
    assert message(lambda: AccelCost(accelerator, "latency_ms"), RequestError) == (
        "unknown metric 'latency_ms': expected one of latency_s, energy_j"
    )
    assert message(lambda: AccelCost(accelerator, "energy_j"), RequestError) == (
        "the energy on zc706 is not known: no constants with a source for this platform. "
        "Search without an energy target, or on a platform that has them, e.g. edge-npu"
    )
    sizes = [len(point.candidates) for point in space.points]
    assert message(lambda: AccelCost(accelerator).expected([torch.ones(2)]), ShapeError) == (
        f"expected weights of lengths {sizes}, got [2]"
    )


def test_a_design_as_a_device_of_the_list(space):
    records = {record["name"]: record for record in design_records()}
    device = device_of(load_design("zc706"))
    assert (device.name, device.runtime, device.dtype) == ("zc706", "accel_models", "int16")
    assert device.description == f"{load_design('zc706').platform.description}: accelerator of up to 900 DSP"
    assert device_of(load_design("edge-npu")).description.endswith(": accelerator of up to 1024 processing elements")
    assert records["zc706"] == {
        "name": "zc706",
        "description": device.description,
        "provenance": "modelled",
        "runtime": "accel_models",
        "dtype": "int16",
        "threads": None,
    }


def test_the_identity_of_a_design_is_the_hash_of_its_sorted_json():
    design = load_design("zc706")
    text = json.dumps(design.to_dict(), sort_keys=True)
    assert AccelTable(design).table_id == hashlib.sha256(text.encode()).hexdigest()
    assert AccelTable(design).cast([1, 2]) == [1, 2]


def test_cuts_serve_the_objective_of_the_table(space):
    ops = space.best([list(row) for row in space.macs()]).ops()
    for objective in ("latency", "interval"):
        wanted = [cost.chunk for cost in block_costs(ops, two_chunks(), objective)]
        assert AccelTable(two_chunks(), objective).chunks_of(ops) == wanted
    assert AccelTable(two_chunks(), "latency").chunks_of(ops) != AccelTable(two_chunks(), "interval").chunks_of(ops)


def test_the_record_of_an_accelerator_by_hand(space):
    accelerator = fixed(space, load_design("zc706"))
    ops = sampled(space, 1)[0].ops()
    platform = accelerator.design.platform
    assert accelerator.record(ops) == {
        "design": accelerator.design.to_dict(),
        "objective": "latency",
        "network": accelerator.network(ops).to_dict(),
        "limits": {
            "dsp": platform.dsp_limit,
            "bram18": platform.bram18_limit,
            "elements": platform.pe_limit,
            "sram_bytes": platform.sram_limit_bytes,
        },
    }
