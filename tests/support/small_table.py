"""A table file of two operations, for the tests that read, write or break one."""

from latency_tables.opspec import OpSpec
from latency_tables.schema import Row, TableFile

CONV = OpSpec("conv", 8, 6, 6, 8, 3, 1, 1)
TAIL = OpSpec("head", 8, 6, 6, 4, hidden=16, activation="none")


def make_file(**calibration):
    """The content of the file; ``calibration`` adds to that of its header."""
    header = {
        "schema": 1,
        "provenance": "measured",
        "device": {"name": "toy", "description": "a toy", "runtime": "onnxruntime", "dtype": "float32", "threads": 1},
        "calibration": {"overhead_s": 1e-5, "scale": 1.25, "interval_factors": [0.9, 1.2], **calibration},
    }
    rows = {CONV.key: Row(CONV.key, 4e-5, 2e-4, details={"sure": True}), TAIL.key: Row(TAIL.key, 6e-5, 3e-4)}
    proof = {"networks": 3, "mape": 0.01, "within_5": 1.0, "within_10": 1.0, "bias": -0.002, "kendall_tau": 1.0}
    return TableFile(header, rows, proof)
