"""The file that is deployed, made from the exported float32 agent as the device's table priced it; scored and timed.

``agent.onnx`` is what ONNX Runtime runs: the float32 agent, or its int8 form with the float32 one beside it as
``agent-float32.onnx``. For TVM ``agent.so`` is compiled from it. An int8 agent is kept only with its return: where the interval
of the difference to the float32 agent on training levels lies below zero, layers go back to float32. Held-out levels choose
nothing: both forms play them once, for the record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosearch.deploy.artifacts.agreement import compare_outputs, outputs_of
from cosearch.deploy.artifacts.compiled import check_library, compile_agent, described, with_batch
from cosearch.deploy.artifacts.quantised import SCHEME, Quantiser, digest_of
from cosearch.deploy.measure import Library, Model, SideBySide, measure_side_by_side
from cosearch.planning.device.artifact import ArtifactPlan
from cosearch.record.durable import write_bytes_atomic
from cosearch.record.results.artifact import ArtifactRecord, CompiledRecord, QuantisedRecord, ReturnRecord
from cosearch.rl.evaluate import Score
from cosearch.statistics import welch_interval
from latency_tables.board.compilers import runtime_version
from latency_tables.board.runners import import_onnxruntime
from latency_tables.board.temporary import temporary_folder
from latency_tables.onnx_models.quantise import quantise_model
from latency_tables.text.writing import remove

POLICY = "policy"  # the one that the agent was made from, among what is timed
AGENT, FLOAT_AGENT, LIBRARY = "agent.onnx", "agent-float32.onnx", "agent.so"
CALIBRATION = CHECKED = 512  # observations of training levels
Evaluate = Callable[[Path], Score]
Observe = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Deployed:
    """What is deployed.

    Attributes:
        record: of ``agent.json``.
        score: its returns on held-out levels.
        model: what is timed.
    """

    record: ArtifactRecord
    score: Score
    model: Model


def deploy(
    form: ArtifactPlan,
    folder: Path,
    frames: np.ndarray,
    *,
    evaluate: Evaluate,
    compare: Evaluate,
    observe: Observe,
    greedy: bool,
    note: Callable[[str], None],
    action_sizes: tuple[int, ...] = (),
    fine_tuned_steps: int = 0,
) -> Deployed:
    """Make the file that is deployed from ``agent.onnx``, and play it.

    Args:
        form: runtime, dtype, threads and batch.
        folder: of the run; has the exported float32 agent.
        frames: observations of held-out levels, over which forms are compared.
        evaluate: plays an ONNX file on held-out levels, for the record.
        compare: plays one on training levels: by these returns layers of an int8 agent go back to float32.
        observe: so many observations of training levels.
        greedy: whether the agent takes the best action and does not sample.
        note: told what was made.
        action_sizes: of several discrete actions, by which forms are compared.
        fine_tuned_steps: of the retraining that saw rounded values.

    Raises:
        ParityError: a compiled library differs from the file that it was made from.
        MeasurementError: a form cannot be made.
    """
    remove(folder / FLOAT_AGENT)
    remove(folder / LIBRARY)
    path = folder / AGENT
    score = evaluate(path)
    if form.runtime == "tvm":
        return _compiled(form, folder, frames, score, note, action_sizes)
    if form.dtype == "int8":
        made = _quantised(path, frames, score, evaluate, compare, observe, greedy, note, action_sizes, fine_tuned_steps)
        return Deployed(_record(form, path, FLOAT_AGENT, quantised=made[0]), made[1], path)
    return Deployed(_record(form, path, AGENT), score, path)


def _record(
    form: ArtifactPlan,
    path: Path,
    source: str,
    *,
    quantised: QuantisedRecord | None = None,
    compiled: CompiledRecord | None = None,
) -> ArtifactRecord:
    content = path.read_bytes()
    return ArtifactRecord(
        file=path.name,
        source=source,
        runtime=form.runtime,
        runtime_version=runtime_version("tvm") if form.runtime == "tvm" else import_onnxruntime().__version__,
        dtype=form.dtype,
        threads=form.threads,
        batch=form.batch,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        quantised=quantised,
        compiled=compiled,
    )


def _quantised(
    path: Path,
    frames: np.ndarray,
    float_score: Score,
    evaluate: Evaluate,
    compare: Evaluate,
    observe: Observe,
    greedy: bool,
    note: Callable[[str], None],
    action_sizes: tuple[int, ...],
    fine_tuned_steps: int,
) -> tuple[QuantisedRecord, Score]:
    """Replace the float32 agent by its int8 form, and keep it as ``agent-float32.onnx``."""
    model = path.read_bytes()
    write_bytes_atomic(path.with_name(FLOAT_AGENT), model)
    seen = observe(CALIBRATION + CHECKED)
    quantiser = Quantiser(model, seen[:CALIBRATION], seen[CALIBRATION:], greedy=greedy, action_sizes=action_sizes)
    form, order = quantiser.within_tolerance()
    of_float = compare(path)
    while True:
        write_bytes_atomic(path, form.model)
        trained = compare(path)
        kept = _keeps(welch_interval(trained.values, of_float.values))
        if kept is not False or len(form.float_layers) == len(quantiser.layers):
            break
        order = order or quantiser.order()
        count = min(len(order), max(1, 2 * len(form.float_layers)))
        note(
            f"int8 loses return on training levels ({trained.mean:.4g} against {of_float.mean:.4g}): {count} of {len(order)} "
            "layers stay in float32"
        )
        form = quantiser.make(tuple(name for name, _ in order[:count]))
    score = evaluate(path)
    difference = welch_interval(score.values, float_score.values)
    held_out = compare_outputs(outputs_of(model, frames), outputs_of(form.model, frames), action_sizes)
    note(
        f"int8 agent: same best action on {held_out.greedy:.1%} of {len(frames)} observations, "
        f"{len(form.float_layers)} of {len(quantiser.layers)} layers in float32, {len(form.model)} bytes instead of {len(model)}"
    )
    record = QuantisedRecord(
        scheme=SCHEME,
        calibration_observations=CALIBRATION,
        calibration_sha256=digest_of(seen[:CALIBRATION]),
        layers=len(quantiser.layers),
        float_layers=form.float_layers,
        layer_losses=dict(order),
        loss_is="other actions" if greedy else "kl",
        loss=form.loss,
        loss_tolerance=quantiser.tolerance,
        greedy_agreement=held_out.greedy,
        kl=held_out.kl,
        value_error=held_out.value_error,
        compared_observations=len(frames),
        score=_returns(score),
        float_score=_returns(float_score),
        score_difference_ci95=difference,
        return_kept=_keeps(difference),
        fine_tuned_steps=fine_tuned_steps,
    )
    return record, score


def _keeps(difference: tuple[float, float] | None) -> bool | None:
    """Whether the interval of int8 minus float32 reaches zero; None without one."""
    return None if difference is None else difference[1] >= 0


def _returns(score: Score) -> ReturnRecord:
    return ReturnRecord(mean=score.mean, ci95=score.ci95, episodes=len(score.returns))


def _compiled(
    form: ArtifactPlan,
    folder: Path,
    frames: np.ndarray,
    score: Score,
    note: Callable[[str], None],
    action_sizes: tuple[int, ...],
) -> Deployed:
    model = (folder / AGENT).read_bytes()
    made = compile_agent(model, folder, threads=form.threads, batch=form.batch, target=form.target, compiler=form.compiler)
    parity = None
    if form.compiler is None:
        parity = check_library(made, model, frames, threads=form.threads, action_sizes=action_sizes)
    record = CompiledRecord(
        target=described(form.target),
        tuned=False,
        max_abs_difference=None if parity is None else parity.max_abs_difference,
        greedy_agreement=None if parity is None else parity.greedy_agreement,
        observations=0 if parity is None else parity.observations,
        timer_p50_s=None if parity is None else parity.timer_p50_s,
    )
    note(
        f"compiled by TVM, untuned, for {record.target}: "
        + ("not run here, it is for another processor" if parity is None else f"max difference {parity.max_abs_difference:.1e}")
    )
    library = folder / LIBRARY
    return Deployed(_record(form, library, AGENT, compiled=record), score, Library(library, made.shape, made.element))


def measure_deployed(
    form: ArtifactPlan, deployed: Deployed, references: Mapping[str, bytes], policy: bytes | None = None, *, seconds: float
) -> SideBySide | None:
    """Time the agent and the reference agents in turns on this machine, back to back and paced, with the form's runtime.

    Args:
        form: runtime, dtype, threads and batch.
        deployed: the agent.
        references: float32 ONNX files by name; they are quantised or compiled as the agent is.
        policy: the ONNX file that the agent was made from, timed as it is, where the runtime takes it; None: there is none.
        seconds: for each.

    Returns:
        The figures; None where the agent was compiled for another processor.

    Raises:
        MeasurementError: the runtime refuses a file, or the measuring process was lost.
    """
    if form.compiler is not None:
        return None
    with temporary_folder("cosearch-") as folder:
        others = {name: in_form(form, model, folder / name) for name, model in references.items()}
        if policy is not None and form.runtime == "onnxruntime":
            others[POLICY] = policy
        return measure_side_by_side(
            {"agent": deployed.model, **others},
            threads=form.threads,
            seconds=seconds,
            runtime=form.runtime,
            dtype=form.dtype,
            batch=form.batch,
        )


def in_form(form: ArtifactPlan, model: bytes, folder: Path) -> Model:
    """A network with random weights in the form of the agent, to be timed; int8 ranges are of random inputs.

    Args:
        form: runtime, dtype, threads and batch.
        model: a float32 ONNX file.
        folder: made for a library.
    """
    if form.runtime == "tvm":
        folder.mkdir()
        made = compile_agent(model, folder, threads=form.threads, batch=form.batch, target=form.target, compiler=form.compiler)
        return Library(folder / LIBRARY, made.shape, made.element)
    return quantise_model(with_batch(model, form.batch)) if form.dtype == "int8" else model
