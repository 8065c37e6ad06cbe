"""What a run amounts to, in words: the verdict, the key figures, how sure each is, and the caveats.

The page and the terminal summary share these sentences, so they cannot disagree. A figure that nobody measured says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosearch.report.data import Run, interval, latency_target_s, number, part
from cosearch.report.format import (
    NOT_MEASURED,
    count_text,
    duration_text,
    energy_text,
    interval_text,
    score_text,
    share_text,
    significant,
    time_text,
)
from cosearch.report.pareto import agent_latency_s, measured_s

PROVENANCE = {
    "measured": "each operation was timed on the device itself",
    "derived": "scaled from measurements of another device or runtime",
    "estimated": "computed from data sheets; the device itself was not timed",
    "modelled": "computed by accelerator models; no board was timed, and nothing validates absolute speed or timing closure",
    "synthetic": "made under emulation; it says how operations compare, not how long they take",
}
UNKNOWN = "provenance unknown"


@dataclass(frozen=True)
class Tile:
    """One key figure: its name, the figure, a word on where it comes from, a second line, and ``good``/``bad``/empty."""

    label: str
    figure: str
    word: str = ""
    detail: str = ""
    mood: str = ""


@dataclass(frozen=True)
class Facts:
    """The figures that several sentences use; ``None`` where a run does not know one."""

    score: float | None
    score_ci95: tuple[float, float] | None
    teacher: float | None
    predicted_s: float | None
    provenance: str
    target_s: float | None
    measured_s: float | None
    measured_on: str
    on_target: bool
    device: str

    @property
    def share(self) -> float | None:
        """Share of the teacher's score; only where the teacher's score is positive, else a share means nothing."""
        return self.score / self.teacher if self.score is not None and self.teacher is not None and self.teacher > 0 else None

    @property
    def holds(self) -> bool | None:
        """Whether the latency promise holds: predicted, and where the target device itself was timed measured, too."""
        if self.target_s is None or self.predicted_s is None:
            return None
        measured_holds = not self.on_target or self.measured_s is None or self.measured_s <= self.target_s
        return self.predicted_s <= self.target_s and measured_holds


def facts(run: Run) -> Facts:
    """The figures of a run, each from the first file that knows it."""
    timed = part(run.agent, "latency", "measured")
    device, here = part(run.record, "device"), timed.get("device")
    words = (
        run.summary.get("table_provenance"),
        part(run.agent, "latency").get("predicted_provenance"),
        part(run.architecture, "predicted").get("provenance"),
        part(run.record, "table").get("provenance"),
    )
    teacher = number(run.summary, "teacher_score_mean")
    return Facts(
        score=number(run.summary, "score_mean"),
        score_ci95=interval(run.summary, "score_ci95"),
        teacher=number(run.record, "teacher", "score_mean") if teacher is None else teacher,
        predicted_s=agent_latency_s(run),
        provenance=str(next((word for word in words if word), UNKNOWN)),
        target_s=latency_target_s(run),
        measured_s=measured_s(run),
        measured_on=str(timed.get("device") or "a device that was not recorded"),
        on_target=here is not None and here == {"this": "this machine"}.get(device.get("name"), device.get("name")),
        device=str(device.get("name") or "the device"),
    )


def progress(run: Run) -> str:
    """How far the run is: ``finished``, or the stage and step of its last line."""
    if run.finished:
        return "finished"
    if not run.metrics:
        return "started, nothing recorded yet"
    last = run.metrics[-1]
    return f"unfinished: {last.get('stage', 'unknown stage')}, step {count_text(number(last, 'step'))}"


def verdict(run: Run) -> str:
    """The outcome in one sentence."""
    known = facts(run)
    latency = _latency_clause(known)
    if known.score is None:
        start = f"This run is not judged yet ({progress(run)})"
        return f"{start}; so far the agent {latency}." if latency and known.predicted_s is not None else f"{start}."
    if known.share is not None:
        score = f"The agent reaches {share_text(known.share)} of its teacher's score"
    elif known.teacher is not None:
        score = f"The agent scores {score_text(known.score)} where its teacher scores {score_text(known.teacher)}"
    else:
        score = f"The agent, which had no teacher, scores {score_text(known.score)}"
    return f"{score} and {latency}." if latency else f"{score}."


def _latency_clause(known: Facts) -> str:
    if known.predicted_s is None:
        return ""
    kind = _source(known.provenance)
    clause = f"is predicted, {kind}, to act in {time_text(known.predicted_s)} on {known.device}"
    if known.target_s is None:
        return clause
    if known.holds:
        source = "model" if known.provenance == "modelled" else "table"
        limits = "" if known.provenance == "measured" else f", as far as such a {source} can tell"
        return f"{clause}: the promise of {time_text(known.target_s)} holds{limits}"
    if known.predicted_s <= known.target_s:
        clause += f", but was measured there at {time_text(known.measured_s)}"
    return f"{clause}: the promise of {time_text(known.target_s)} is broken"


def _source(provenance: str) -> str:
    if provenance == "modelled":
        return "by an accelerator model"
    return f"from {_article(provenance)} table" if provenance != UNKNOWN else "from a table of unknown provenance"


def tiles(run: Run) -> list[Tile]:
    """The key figures, in the order in which a reader asks for them."""
    known = facts(run)
    episodes = number(run.summary, "episodes")
    share_ci = None
    if known.share is not None and known.score_ci95:
        share_ci = " to ".join(f"{100 * bound / known.teacher:.0f}" for bound in known.score_ci95) + " %"
    device = part(run.agent, "latency", "measured")
    words = (device.get("device"), device.get("runtime"), _threads(device.get("threads")))
    where = ", ".join(str(word) for word in words if word)
    return [
        Tile(
            "Score",
            score_text(known.score),
            _word(known.score, "measured"),
            f"95 %: {interval_text(known.score_ci95)}; {count_text(episodes)} episodes" if known.score is not None else "",
        ),
        Tile(
            "Of the teacher's score",
            share_text(known.share),
            "",
            f"teacher {score_text(known.teacher)}" + (f"; 95 %: {share_ci}" if share_ci else "")
            if known.teacher is not None
            else "no teacher",
        ),
        Tile(
            "Latency, predicted",
            time_text(known.predicted_s),
            _word(known.predicted_s, known.provenance),
            _promise(known),
            {True: "good", False: "bad", None: ""}[known.holds],
        ),
        Tile(
            "Latency, measured here",
            time_text(known.measured_s),
            _word(known.measured_s, "measured"),
            f"median; {where}" if where and known.measured_s is not None else "",
        ),
        Tile("Parameters", count_text(number(run.summary, "params")), "", "weights and biases"),
        Tile("Multiply-accumulates", count_text(number(run.summary, "macs")), "", "for one decision"),
        Tile("Wall time", duration_text(_wall_s(run)), "", "of the whole run" if run.finished else "so far"),
        Tile("Environment steps", count_text(number(run.summary, "env_steps")), "", "search and retraining"),
    ]


def _promise(known: Facts) -> str:
    if known.target_s is None:
        return "no target recorded"
    text = f"target {time_text(known.target_s)}"
    if known.holds is None:
        return text
    if known.predicted_s > known.target_s:
        return f"{text}: broken, {share_text(known.predicted_s / known.target_s - 1)} over"
    spare = share_text(1 - known.predicted_s / known.target_s)
    return f"{text}: holds, {spare} to spare" if known.holds else f"{text}: broken when measured"


def certainty(run: Run) -> list[tuple[str, str, str]]:
    """How sure each figure is: quantity, one word, and what that rests on."""
    known = facts(run)
    episodes, seeds = number(run.summary, "episodes"), _seeds(run)
    rows = []
    if known.score is not None:
        basis = f"{count_text(episodes)} episodes, {seeds} {'seed' if seeds == 1 else 'seeds'} of training."
        luck = " The interval covers the luck of the episodes, not that of the training." if seeds == 1 else ""
        rows.append(("Score", "measured", basis + luck))
    if known.predicted_s is not None:
        bounds = interval(run.architecture, "predicted", "interval_s")
        within = f" Expected between {time_text(bounds[0])} and {time_text(bounds[1])}." if bounds else ""
        basis = _sentence(PROVENANCE.get(known.provenance, "no more is recorded"))
        rows.append(("Latency, predicted", known.provenance, basis + within))
    if known.measured_s is not None:
        place = "the target device itself" if known.on_target else f"not the target device ({known.device})"
        rows.append(("Latency, measured", "measured", f"On {known.measured_on}: {place}."))
    else:
        rows.append(("Latency, measured", NOT_MEASURED, "The exported agent was not timed."))
    energy = number(run.architecture, "predicted", "energy_j")
    modelled = known.provenance == "modelled"
    no_energy = "No constants with a source for this platform." if modelled else "The table holds no energy."
    rows.append(
        (
            "Energy",
            known.provenance if energy is not None else NOT_MEASURED,
            f"{energy_text(energy)} for one decision, predicted." if energy is not None else no_energy,
        )
    )
    parity = part(run.agent, "parity")
    difference, agreement = number(parity, "max_abs_difference"), number(parity, "greedy_agreement")
    if difference is not None:
        frames = count_text(number(parity, "observations"))
        rows.append(
            (
                "Exported file",
                "measured",
                f"Differs from the trained network by at most {significant(difference)}; "
                f"the same greedy action on {share_text(agreement)} of {frames} observations.",
            )
        )
    return rows


def caveats(run: Run) -> list[str]:
    """What a reader should not conclude."""
    known, found = facts(run), []
    if known.predicted_s is not None and known.provenance != "measured":
        source = "an accelerator model" if known.provenance == "modelled" else f"{_article(known.provenance)} table"
        found.append(
            f"The latency for {known.device} rests on {source}: "
            f"{PROVENANCE.get(known.provenance, 'how it was made is not recorded')}."
        )
    if known.measured_s is not None and not known.on_target:
        found.append(f"The latency was timed on {known.measured_on}, not on {known.device}: it does not test the prediction.")
    if known.score is not None and _seeds(run) == 1:
        found.append("One seed: another seed may find another architecture and another score.")
    met = run.summary.get("target_met")
    if known.holds is not None and isinstance(met, bool) and met != known.holds:
        found.append(f"The summary says that the target is {'met' if met else 'not met'}; the figures above say the contrary.")
    if run.finished and not run.summary.get("control"):
        found.append("No random-search control was run: how much the search itself contributes is not known.")
    if known.teacher is None:
        found.append("No teacher's score is recorded, so the score has no yardstick.")
    elif known.teacher <= 0:
        found.append("The teacher's score is not positive, so a share of it is not shown.")
    return found


def _seeds(run: Run) -> int:
    """Training seeds behind the score: one, unless the summary lists or counts more."""
    seeds = run.summary.get("seeds")
    return len(seeds) if isinstance(seeds, list) and seeds else int(number(run.summary, "seeds") or 1)


def _wall_s(run: Run) -> float | None:
    walls = [wall for line in run.metrics if (wall := number(line, "wall_s")) is not None]
    return number(run.summary, "wall_s") if run.finished else max(walls, default=None)


def _threads(threads: object) -> str:
    return "" if threads is None else f"{threads} thread" + ("" if threads == 1 else "s")


def _article(word: str) -> str:
    return f"an {word}" if word[:1] in "aeiou" else f"a {word}"


def _word(value: float | None, word: str) -> str:
    return "" if value is None else word


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
