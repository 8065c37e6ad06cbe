"""Readers of ``latency_tables`` and ``accel_models`` for the fuzzer: each as a function of a folder for its file."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fuzz_rule import Reader, of_file

Maker = Callable[[Path], Reader]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _lines(*records: object) -> bytes:
    return b"".join(_json(record) + b"\n" for record in records)


def _rows(*rows: dict[str, object]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _head(path: Path, lines: int) -> bytes:
    return b"".join(path.read_bytes().splitlines(keepends=True)[:lines])


def table(folder: Path) -> Reader:
    """A table, its digest made right, and what is asked of one."""
    import small_table

    from latency_tables.schema import content_id, dump_table
    from latency_tables.showing.output import certificate_markdown, certificate_rows, summary
    from latency_tables.table import load_table

    def remade(content: bytes) -> bytes:
        try:
            records = [json.loads(line) for line in content.splitlines() if line.strip()]
            records[0]["table_id"] = content_id(records)
            return _lines(*records)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            return content

    def read(path: Path) -> object:
        found = load_table(path)
        return (
            summary(found),
            certificate_markdown(certificate_rows([found])),
            found.predict([small_table.CONV, small_table.TAIL]),
        )

    small = small_table.make_file()
    proof = {
        **(small.certificate or {}),
        "others": {"flops": {"networks": 3, "mape": 0.2, "within_5": 0.1, "within_10": 0.2, "bias": 0.1, "kendall_tau": None}},
        "predicted_s": [1e-4, 2e-4, 3e-4],
        "measured_s": [1e-4, 2e-4, 3e-4],
    }
    seeds = (dump_table(small).encode(), dump_table(replace(small, certificate=proof)).encode())
    return of_file(folder / "table.jsonl", seeds, read, remade=remade)


def listed(folder: Path) -> Reader:
    """A folder of tables, as ``list devices`` goes through it."""
    from unittest.mock import patch

    import small_table

    from latency_tables import devices
    from latency_tables.schema import dump_table

    def read(path: Path) -> object:
        with patch.object(devices, "table_folders", lambda: [folder]):
            return devices.list_devices()

    (folder / "toy").mkdir()
    return of_file(folder / "toy" / "listed.jsonl", (dump_table(small_table.make_file()).encode(),), read)


def journal(folder: Path) -> Reader:
    """The journal of a measurement, and what is made of its visits."""
    from latency_tables.board.timing import Paced, Visit
    from latency_tables.measuring.journal import Journal
    from latency_tables.measuring.statistics import paired_visits

    identity = {"plan": "p", "readings": 1}
    visit = Visit(*[1e-4] * 7, 50, 1, 1.0, 2e-5).to_dict()
    seed = _lines(
        {"journal": 1, **identity},
        {"kind": "place", "id": "", "version": "1", "cpu": "x"},
        {"id": "m", "graph": {"Conv": 1}},
        *({"id": name, "visit": visit} for name in ("m", "n", "m")),
        {"id": "f", "failed": "too large"},
        {"id": "m", "kind": "paced", "paced": Paced(0.01, *[1e-4] * 4, 10, 0).to_dict()},
        {"id": "m", "kind": "energy", "energy_j": 1e-3},
    )

    def read(path: Path) -> object:
        found = Journal(path, identity)
        found.close()
        return paired_visits(found.visits), [visit.at(2e-5) for visits in found.visits.values() for visit in visits]

    return of_file(folder / "measured.jsonl.journal", (seed,), read)


def answers(folder: Path) -> Reader:
    """Lines of a board: the verb, then its answer."""
    from board_answers import ANSWERS

    from latency_tables.measuring.answers import read_answer

    def read(content: bytes) -> object:
        verb, _, line = content.decode("utf-8", "replace").partition("\n")
        return read_answer(line, verb, "the board")

    return Reader("answers.json", tuple(verb.encode() + b"\n" + _json(answer) for verb, answer in ANSWERS.items()), read)


def target(folder: Path) -> Reader:
    """The target of ``--tvm-target``."""
    from latency_tables.measuring.rpc import read_tvm_target

    seed = b'{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}'
    return Reader("tvm-target.json", (seed,), lambda content: read_tvm_target(content.decode("utf-8", "surrogateescape")))


def work_list(folder: Path) -> Reader:
    """A work list, whose operations and networks are made."""
    from latency_tables.worklists import FOLDER, load_worklist

    shipped = json.loads((FOLDER / "mlp.json").read_text())
    networks = shipped["networks"]
    networks = networks if isinstance(networks, list) else list(networks.values())
    seed = _json({"space": "x", "ops": shipped["ops"][:2], "networks": networks[:1], "uniform": networks[1:2]})
    cells = json.loads((FOLDER / "cell.json").read_text())["networks"]
    wired = _json({"space": "x", "ops": [], "networks": (cells if isinstance(cells, list) else list(cells.values()))[:1]})
    return of_file(folder / "work_list.json", (seed, wired), lambda path: load_worklist(path).to_dict())


def estimate(folder: Path) -> Reader:
    """A specification of an estimate, and the table that it makes."""
    import small_table

    from latency_tables.estimating.estimate import build_estimate
    from latency_tables.estimating.specification import SPECS, load_spec
    from latency_tables.schema import dump_table

    def read(path: Path) -> object:
        spec = load_spec(path)
        spec.roofline()
        return dump_table(build_estimate(spec, [small_table.CONV, small_table.TAIL]))

    return of_file(folder / "estimate.json", ((SPECS / "jetson.json").read_bytes(), (SPECS / "pixel-3.json").read_bytes()), read)


def published(folder: Path) -> Reader:
    """Published blocks of one device."""
    from latency_tables.estimating.published import load_published

    names = "device,metric,value_kind,op,value,in_ch,out_ch,stride,input_h,input_w"
    rows = ["here,latency,delta_vs_skip,k3_e6,1.5,16,24,1,32,32", "here,latency,constant,all,9.5,1,1,1,1,1"]
    return of_file(folder / "published.csv", ("\n".join([names, *rows, ""]).encode(),), lambda path: load_published(path, "here"))


BLOCK = {"in_ch": 16, "out_ch": 24, "stride": 1, "input_h": 32, "input_w": 32}
EVIDENCE = {
    "hwnasbench_fbnet_ops.csv": {
        "device": "raspi4",
        "metric": "latency",
        "value_kind": "delta_vs_skip",
        "op": "k3_e6",
        "value": 1.5,
        "in_ch": 16,
        "out_ch": 24,
        "stride": 1,
        "input_h": 32,
        "input_w": 32,
    },
    "help_fbnet_latency.csv": {"arch_id": 0, "op_idx": "0" * 22, "raspi4": 1.5, "titan_1": 2.5},
    "jh88_rpi4_fbnet_tf2.csv": {
        "op": "k3_e6",
        "value": 1.5,
        "in_ch": 16,
        "out_ch": 24,
        "stride": 1,
        "input_h": 32,
        "input_w": 32,
    },
}


def evidence(name: str) -> Maker:
    """One of the three files of published latencies beside the two others."""

    def make(folder: Path) -> Reader:
        from latency_tables.estimating.evidence import FILES, load_sets

        for file, row in EVIDENCE.items():
            content = _rows(row)
            (folder / file).write_bytes(content)
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        packed = f"{name}.gz" in FILES
        seed = _rows(EVIDENCE[name], {**EVIDENCE[name], **({"op_idx": "1" * 22} if packed else {})})
        made = of_file(
            folder / (f"{name}.gz" if packed else name),
            (gzip.compress(seed, mtime=0), seed) if packed else (seed,),
            lambda path: load_sets(folder),
            remade=(lambda content: content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 1)) if packed else bytes,
        )
        return replace(made, name=name)

    return make


KERNEL = {"HW": 28, "CIN": 16, "COUT": 32, "KERNEL_SIZE": 3, "STRIDES": 2}
NN_METER = {
    "conv-bn-relu": {"A": {"config": KERNEL, "latency": "12.5 +- 0.3"}},
    "dwconv-bn-relu": {"E": {"config": {"HW": 28, "CIN": 16, "KERNEL_SIZE": 5, "STRIDES": 1}, "latency": 3}},
    "fc": {"X": {"config": {"CIN": 64, "COUT": 10}, "latency": "0.5"}},
}
WIDE = "expanded_conv-input:56x56x24-output:28x28x40-expand:144-kernel:5-stride:2-idskip:0-se:0-hs:0"
ONCE_FOR_ALL = {
    WIDE: {"mean": 2.0, "count": 5},
    "expanded_conv-input:28x28x40-output:28x28x40-expand:3-kernel:3-stride:1-idskip:1": {"mean": 1.0},
    "Conv-input:224x224x3-output:112x112x32": {"mean": 4.0},
}
IMPORTS = {
    "csv": (
        b"kind,in_channels,in_height,in_width,out_channels,kernel,stride,padding,expansion,activation,latency_ms,energy_mj\n"
        b"conv,8,6,6,16,3,2,1,,,0.25,0.5\nmbconv,8,6,6,8,5,1,2,3,relu,0.5,\nlinear,4,1,1,8,,,,,,0.01,\n",
        b"key,latency_us\nconv-8x6x6-o8-k3s1p1-g1e1h0-relu-float32-b1,40\n",
    ),
    "nn-meter": (_json(NN_METER),),
    "once-for-all": (_json(ONCE_FOR_ALL),),
}


def imported(kind: str, name: str) -> Maker:
    """Latencies measured elsewhere, and the table that is made of them."""

    def make(folder: Path) -> Reader:
        from latency_tables.importing.table import ImportRequest, imported_table
        from latency_tables.schema import dump_table, parse_table

        def read(path: Path) -> object:
            found, _ = imported_table(ImportRequest(path, kind, "here", "a board", "tflite", "float32", 1, "me"))
            return parse_table(dump_table(found), where="it")

        return of_file(folder / name, IMPORTS[kind], read)

    return make


def design(folder: Path) -> Reader:
    """An accelerator design, and a layer on it."""
    from accel_models.design import DESIGNS, load_design
    from accel_models.evaluation import evaluate
    from accel_models.layers import NETWORKS, load_layers

    layers = load_layers(NETWORKS / "impala.json")[:2]

    def read(path: Path) -> object:
        found = load_design(path)
        return found.to_dict(), evaluate(layers, found)

    seeds = tuple(path.read_bytes() for path in sorted(DESIGNS.glob("*.json")))
    return of_file(folder / "design.json", seeds, read)


def layers(name: str) -> Maker:
    """A list of layers, evaluated on a design."""

    def make(folder: Path) -> Reader:
        from accel_models import check
        from accel_models.design import DESIGNS, load_design
        from accel_models.evaluation import evaluate
        from accel_models.layers import NETWORKS, load_layers

        on = load_design(DESIGNS / "edge-npu.json")
        two = {"name": "two", "layers": json.loads((NETWORKS / "impala.json").read_text())["layers"][:2]}
        topology = "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,\n"
        seeds = {
            "network.json": (_json(two),),
            "network.csv": (
                _head(check.DATA / "layers.csv", 4),
                f"{topology}c1, 34, 34, 3, 3, 16, 32, 1,\nc2, 16, 16, 3, 3, 32, 32, 2,\n".encode(),
                b"Layer,M,N,K,\nfc,1,256,512,\n",
            ),
        }
        return of_file(folder / name, seeds[name], lambda path: evaluate(load_layers(path), on))

    return make


TIMELOOP = "target.cycle,target.energy,mapping.mapping,arch.meshX,arch.mem1_entries,arch.mem2_entries,prob.Wstride,prob.Hstride"


def reference(name: str, lines: int) -> Maker:
    """Rows of another model."""

    def make(folder: Path) -> Reader:
        from accel_models import check

        names = TIMELOOP + "," + ",".join(f"prob.{d}" for d in "CKPQRSN")
        mapping = "L3[WIO] C2 K4X - L2[WI] N1 - L1[O] Q7 P3 - L0[W] N1"
        rows = f"{names}\n9,1.5,{mapping},16,64,64,1,1,2,4,3,7,1,1,1\n9,2.5,{mapping},16,64,64,1,1,2,4,3,7,1,1,1\n"
        seed = rows.encode() if name == "timeloop" else _head(check.DATA / f"oracle_{name}.csv", lines)
        return of_file(folder / f"{name}.csv", (seed,), lambda path: check.compare(name, path))

    return make


MAKERS: dict[str, Maker] = {
    "table.jsonl": table,
    "listed.jsonl": listed,
    "measured.jsonl.journal": journal,
    "answers.json": answers,
    "tvm-target.json": target,
    "work_list.json": work_list,
    "estimate.json": estimate,
    "published.csv": published,
    **{name: evidence(name) for name in EVIDENCE},
    "latencies.csv": imported("csv", "latencies.csv"),
    "nn-meter.json": imported("nn-meter", "nn-meter.json"),
    "once-for-all.json": imported("once-for-all", "once-for-all.json"),
    "design.json": design,
    "network.json": layers("network.json"),
    "network.csv": layers("network.csv"),
    "scalesim.csv": reference("scalesim", 4),
    "zigzag.csv": reference("zigzag", 3),
    "timeloop.csv": reference("timeloop", 0),
}
