"""What a checkpoint holds: it reads back to the same, old ones too; time is counted over all processes."""

import pytest
import torch

from cosearch.pipeline import session as session_module
from cosearch.pipeline.checkpoint import Checkpoint, RetrainOutput, SearchOutput, StageOutputs
from cosearch.pipeline.session import Checkpointing, Clock
from cosearch.record.rundir import RunDir
from cosearch.seeding import Streams

SEARCHED = SearchOutput((1, 0, 2), {"stem.weight": torch.arange(3.0)}, 640)
TRAINED = RetrainOutput({"stem.weight": torch.arange(3.0) + 1}, 320)
DESIGN = {"design": {"name": "toy"}, "chunk_of": [0, 0], "searches": 3, "next_step": 20, "made_for": [1, 0, 2]}
FOUND = {"choices": [1, 0, 2], "searched_weights": SEARCHED.weights, "search_steps": 640}
OLD = {  # as versions before the typed outputs wrote it
    "stage": "retrain",
    "stage_state": {"step": 64, "subject": {}, "collector": {}},
    "handed_on": FOUND,
    "wall_s": 12.5,
    "ordinal": 7,
    "streams": {"seed": 0},
    "accelerator": DESIGN,
}


@pytest.mark.parametrize("outputs", [StageOutputs(), StageOutputs(SEARCHED), StageOutputs(SEARCHED, TRAINED)])
@pytest.mark.parametrize("state", [None, {"step": 64, "subject": {}}])
@pytest.mark.parametrize("accelerator", [None, DESIGN])
def test_a_checkpoint_reads_back_to_the_same(outputs, state, accelerator):
    made = Checkpoint("retrain", {"seed": 0}, state, outputs, 12.5, 7, accelerator)
    again = Checkpoint.from_dict(made.to_dict())
    assert again == made and again.step == (64 if state else 0)


def test_an_old_checkpoint_is_read():
    old = Checkpoint.from_dict(OLD)
    assert old == Checkpoint("retrain", {"seed": 0}, OLD["stage_state"], StageOutputs(SEARCHED), 12.5, 7, DESIGN)
    done = Checkpoint.from_dict(
        {**OLD, "stage": "done", "handed_on": {**FOUND, "weights": TRAINED.weights, "retrain_steps": 320}}
    )
    assert done.outputs == StageOutputs(SEARCHED, TRAINED)
    begun = Checkpoint.from_dict({key: value for key, value in {**OLD, "handed_on": {}}.items() if key != "accelerator"})
    assert begun.outputs == StageOutputs() and begun.accelerator is None


def test_time_is_counted_over_all_processes_and_from_the_newest_checkpoint(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(session_module.time, "perf_counter", lambda: now[0])
    run, streams = RunDir.create(tmp_path, "one", {}), Streams(0)
    clock = Clock(5.0)
    checkpoints = Checkpointing(run, Checkpoint("search", streams.state_dict(), wall_s=5.0), streams, clock)
    now[0] = 103.0
    assert (clock.spent_s, checkpoints.age_s) == (8.0, 3.0)
    checkpoints.save({"step": 32})
    assert (clock.spent_s, checkpoints.age_s) == (8.0, 0.0)
    now[0] = 104.5
    checkpoints.finish_stage("retrain", search=SEARCHED)
    saved = Checkpoint.from_dict(run.load_checkpoint())
    assert (saved.stage, saved.step, saved.wall_s, saved.ordinal) == ("retrain", 0, 9.5, 2)
    assert saved.outputs.search.choices == (1, 0, 2) and torch.equal(
        saved.outputs.search.weights["stem.weight"], torch.arange(3.0)
    )


def test_a_stage_that_is_done_again_finds_the_outputs_of_those_before_it(tmp_path):
    run, streams = RunDir.create(tmp_path, "one", {}), Streams(0)
    done = Checkpoint("done", streams.state_dict(), outputs=StageOutputs(SEARCHED, TRAINED))
    checkpoints = Checkpointing(run, done, streams, Clock())
    checkpoints.go_back_to("finish")
    checkpoints.finish_stage("done")
    assert checkpoints.current.stage == "done" and checkpoints.current.outputs == done.outputs
