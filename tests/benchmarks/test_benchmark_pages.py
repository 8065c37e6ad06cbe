"""Benchmarks whose tables lie in pages: arithmetic by hand, the loop once a period, the pages beside the kept results."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from cosearch.benchmarks.documents import DOCS, between
from cosearch.benchmarks.searches import compress, quantum
from cosearch.benchmarks.speed import int8, loop_check, paced, reversible
from cosearch.benchmarks.speed.int8 import AgentRow, Int8Result, NetworkRow
from cosearch.benchmarks.speed.paced import MODES, PacedMode, PacedResult, PacedRow
from cosearch.record.json_record import from_json
from cosearch.space.space import SPACES
from cosearch.space.supernet import Path, SuperNet

ROW = AgentRow(
    name="toy", env="gym:Toy-v0", description="a toy", params=1234, random_score=-5.0, score=9.0, score_ci95=(8.0, 10.0),
    float_score=9.5, float_score_ci95=(8.5, 10.5), difference_ci95=(-2.0, 1.0), episodes=64, layers=3, float_layers=1,
    greedy=0.975, kl=0.00123, bytes=1500, float_bytes=5200, latency_s=20e-6, float_latency_s=30e-6, speed_up=1.5,
    speed_up_low=1.4, speed_up_high=1.6, load=2.0,
)  # fmt: skip


def test_a_part_of_a_page_is_replaced_and_nothing_else():
    page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n"
    assert between(page, "x", "new\nlines") == page.replace("old", "new\nlines")


def test_errors_of_predictions_by_hand_and_the_row_of_an_agent():
    networks = [
        NetworkRow(latency_s=1e-4, float_latency_s=2e-4, predicted_s=1.1e-4, float_predicted_s=2e-4, load=1.0),
        NetworkRow(latency_s=2e-4, float_latency_s=4e-4, predicted_s=1.9e-4, float_predicted_s=5e-4, load=1.0),
    ]
    result = Int8Result(machine="M", agents=(ROW,), networks=tuple(networks), table_id="a", float_table_id="b")
    assert result.error("int8") == pytest.approx((0.075, 0.025))  # 10 % above, 5 % below
    assert result.error("float32") == pytest.approx((0.125, 0.125))
    assert result.error("speed-up") == pytest.approx(((1 - 20 / 22 + 5 / 1.9 / 2 - 1) / 2, (20 / 22 - 1 + 5 / 1.9 / 2 - 1) / 2))
    text = int8.markdown(result)
    assert (
        "| gym:Toy-v0 (1,234 weights) | -5.00 | 9.50 [8.50, 10.50] | 9.00 [8.00, 10.00] | -2.00 to 1.00 | 97.5% | 0.0012 "
        "| 1 of 3 | 5.2, 1.5 | 30, 20 | 1.50 (1.40 to 1.60) |"
    ) in text
    assert (
        "| int8 latency | 7.5% | +2.5% | 100 to 200 us |" in text
        and "| float32 latency | 12.5% | +12.5% | 200 to 400 us |" in text
    )
    assert "| times as fast | 20.3% | +11.2% | 2.00 to 2.00 |" in text
    told = dataclasses.replace(ROW, predicted_s=21e-6, float_predicted_s=33e-6)
    assert "tables of this machine predict 33 and 21 us for gym:Toy-v0" in int8.markdown(
        dataclasses.replace(result, agents=(told,))
    )
    assert "random networks" not in int8.markdown(dataclasses.replace(result, networks=()))


def test_what_was_made_of_the_same_request_is_not_made_again(tmp_path):
    path = tmp_path / "row.json"
    assert int8._kept(path, "a") is None
    int8._keep(path, "a", ROW)
    assert from_json(AgentRow, int8._kept(path, "a"), path) == ROW and int8._kept(path, "b") is None


def test_a_real_agent_decides_once_a_period_in_each_way(monkeypatch):
    monkeypatch.setattr(paced, "PERIOD_S", 0.003)
    row = paced.paced_row("MLP 64-64, 8 features", 10, 2)
    assert tuple(row.modes) == MODES
    for mode in row.modes.values():
        assert mode.calls == 20 and 0 < mode.p50_s <= mode.p99_s < 1 and 0 <= mode.missed <= 20 and mode.answered_p99_s > 0


def test_the_row_of_a_paced_agent():
    modes = {
        name: PacedMode(p50_s=1e-4 * i, p99_s=1e-3 * i, answered_p99_s=1.0, missed=i, calls=9) for i, name in enumerate(MODES, 1)
    }
    text = paced.markdown(PacedResult(period_s=0.02, agents=(PacedRow(name="A", modes=modes, load=1.5),)))
    assert text.startswith("9 decisions in each way, once in 20 ms; load of the machine 1.5 to 1.5;")
    assert "| A | 100, 1,000 | 200, 2,000 | 300, 3,000 | 400, 4,000 | 2, 4 |" in text


PAGES = {
    "int8": ("evidence/int8.md", "int8", lambda kept: int8.markdown(from_json(Int8Result, kept, "int8.json"))),
    "paced": ("guide/deploy.md", "paced", lambda kept: paced.markdown(from_json(PacedResult, kept, "paced.json"))),
    "loop_check": ("guide/artifact.md", "loop check", lambda kept: loop_check.sentence(loop_check.LoopCheck(**kept))),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_says_what_the_benchmark_kept(name):
    kept, (page, mark, text) = int8.HERE / f"{name}.json", PAGES[name]
    if not kept.is_file():
        pytest.skip(f"{name}.json has not been made")
    content = (DOCS / page).read_text(encoding="utf-8")
    assert between(content, mark, text(json.loads(kept.read_text(encoding="utf-8")))) == content


def test_the_page_of_quantum_circuits_has_the_table_of_the_kept_result():
    result = from_json(quantum.QuantumResult, json.loads(quantum.OUT.read_text(encoding="utf-8")), quantum.OUT)
    page = quantum.PAGE.read_text(encoding="utf-8")
    assert between(page, "quantum", quantum.markdown(result)) == page
    assert {game: len(found.shortest) for game, found in result.games.items()} == {"bell": 2, "ghz-3": 3}


def test_figures_of_built_circuits_by_hand():
    some = quantum.built(np.array([2, 20, 4, 20]), np.array([True, False, True, False]))
    assert some == quantum.Built(4, 0.5, 3.0, 2, 46) and some.calls_per_success == 23.0
    none = quantum.built(np.array([20, 20]), np.array([False, False]))
    assert none == quantum.Built(2, 0.0, None, None, 40) and none.calls_per_success is None
    assert quantum.breadth_first("ghz-4")[0] == ("h(0)", "cnot(0,1)", "cnot(1,2)", "cnot(2,3)")


def test_the_forms_of_a_deep_supernet_lose_alike_and_keep_different_amounts(monkeypatch):
    monkeypatch.setattr(reversible, "BATCHES", {"mlp": 256, "chain": 4})
    kept = {form: reversible.measured("mlp", form, 16).kept_bytes for form in reversible.FORMS}
    assert kept["reversible"] < kept["checkpoints"] < kept["plain"]
    generator = torch.Generator().manual_seed(0)
    made = SPACES.get("mlp").make({"candidates": reversible.CANDIDATES["mlp"], "stage_repeats": [4]}, (8,), 3)
    supernet, frames = SuperNet(made, generator), torch.randn(8, 8, generator=generator)
    path = Path(((0, 1, 2),) * 4, tuple(torch.full((3,), 1 / 3, requires_grad=True) for _ in range(4)), soft=True)
    losses = [float(reversible.forward(supernet, frames, path, form).detach()) for form in reversible.FORMS]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6) and losses[0] != 0.0
    rows = [reversible.Row("mlp", "plain", depth, depth * 10**6, 2 * depth * 10**6, depth / 100) for depth in reversible.DEPTHS]
    monkeypatch.setattr(reversible, "FORMS", ("plain",))
    monkeypatch.setattr(reversible, "BATCHES", {"mlp": 256})
    assert "| mlp, 256 | plain | 4, 16, 64 | 8, 32, 128 | 0.04, 0.16, 0.64 |" in reversible.markdown(rows)


def test_the_page_has_the_kept_rows():
    kept = json.loads(compress.KEPT.read_text())
    assert compress.markdown(list(kept["rows"].values()), kept["policies"]) in compress.PAGE.read_text()
