"""How sure each figure of a run is: one word for where it comes from, and what that rests on."""

from __future__ import annotations

from cosearch.record.results.artifact import ArtifactRecord
from cosearch.report.data import Run
from cosearch.report.facts import PROVENANCE, facts, sentence
from cosearch.report.format import NOT_MEASURED, count_text, energy_text, score_text, share_text, significant, time_text
from cosearch.statistics import interval_text


def certainty(run: Run) -> list[tuple[str, str, str]]:
    """How sure each figure is: quantity, one word, and what that rests on."""
    known, rows = facts(run), []
    if run.summary is not None:
        luck = "The interval covers the luck of the episodes, not that of the training."
        basis = f"{count_text(run.summary.episodes)} episodes, 1 seed of training. {luck}"
        if run.summary.score_ci95 is None:
            basis = f"1 episode, 1 seed of training: {interval_text(None, 'episode')}."
        rows.append(("Score", "measured", basis))
    costs = None if run.architecture is None else run.architecture.predicted
    if known.predicted_s is not None:
        basis = sentence(PROVENANCE.get(known.provenance, "no more is recorded"))
        if costs is not None and costs.interval_s is not None:
            limits = " (limits of the device's specification, which may be assumed)" * (known.provenance == "estimated")
            basis += f" Expected between {time_text(costs.interval_s[0])} and {time_text(costs.interval_s[1])}{limits}."
        rows.append(("Latency, predicted", known.provenance, basis))
    if known.measured_s is not None:
        place = "the target device itself" if known.on_target else f"not the target device ({known.device})"
        rows.append(("Latency, measured", known.measured_word, f"On {known.measured_on}: {place}."))
    else:
        rows.append(("Latency, measured", NOT_MEASURED, "The exported agent was not timed."))
    energy = None if costs is None else costs.energy_j
    modelled = known.provenance == "modelled"
    no_energy = "No constants with a source for this platform." if modelled else "The table holds no energy."
    rows.append(
        (
            "Energy",
            known.provenance if energy is not None else NOT_MEASURED,
            f"{energy_text(energy)} for one decision, predicted." if energy is not None else no_energy,
        )
    )
    if run.agent is not None:
        parity = run.agent.parity
        same = (
            f"the same greedy action on {share_text(parity.greedy_agreement)} of {count_text(parity.observations)} observations"
        )
        difference = significant(parity.max_abs_difference)
        basis = f"Differs from the trained network by at most {difference}; {same}."
        rows.append(("Exported file", "measured", basis))
        rows += [] if run.agent.artifact is None else _of_artifact(run.agent.artifact)
    return rows


def _of_artifact(artifact: ArtifactRecord) -> list[tuple[str, str, str]]:
    """What the int8 or compiled form of the agent keeps of the float32 one; nothing for the float32 one itself."""
    form, compiled = artifact.quantised, artifact.compiled
    if form is not None:
        difference = interval_text(form.score_difference_ci95, "episode")
        kept = "lies below zero: int8 loses return" if form.return_kept is False else "int8 minus float32"
        return [
            (
                "Int8 against float32",
                "measured",
                f"Scores {score_text(form.score.mean)} against {score_text(form.float_score.mean)} "
                f"(difference {difference}, {kept}); the same greedy action on {share_text(form.greedy_agreement)} of "
                f"{count_text(form.compared_observations)} observations; {len(form.float_layers)} of {form.layers} layers stay "
                "in float32; "
                f"ranges from {count_text(form.calibration_observations)} observations of training levels.",
            )
        ]
    if compiled is not None:
        tuned = "tuned" if compiled.tuned else "not tuned"
        if compiled.max_abs_difference is None:
            return [("Compiled by TVM", NOT_MEASURED, f"For {compiled.target}, {tuned}: another processor than this one.")]
        difference = significant(compiled.max_abs_difference)
        basis = f"For {compiled.target}, {tuned}. Differs from ONNX Runtime by at most {difference}"
        return [("Compiled by TVM", "measured", f"{basis} over {count_text(compiled.observations)} observations.")]
    return []
