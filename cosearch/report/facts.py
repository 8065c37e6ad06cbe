"""What a run amounts to, in words: the verdict, the key figures, and the caveats.

The page and the terminal summary share these sentences, so they cannot disagree. A figure that nobody measured says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cosearch.record.metrics import number
from cosearch.record.results.agent import MeasuredLatency
from cosearch.record.results.evaluation import EvaluationRecord
from cosearch.record.results.summary import Summary, TargetCheck, all_met
from cosearch.record.run_record import TargetRecord
from cosearch.report.data import Run
from cosearch.report.format import (
    NOT_KNOWN,
    NOT_MEASURED,
    count_text,
    duration_text,
    score_text,
    share_text,
    time_text,
)
from cosearch.report.learned import hardly_learned, tempered_teacher
from cosearch.report.scores import metric_label, solved_text, teacher_text
from cosearch.space.derivation.counting import Counts
from cosearch.space.derivation.derive import within
from cosearch.statistics import interval_text
from latency_tables.opspec import Device

UNKNOWN = f"{NOT_KNOWN}: the table has no such figures, measure it (`cosearch deploy RUN`, or --device this)"
AGENT_RUNTIMES = ("onnxruntime", "tvm")  # those that agents are deployed in
PROVENANCE = {
    "measured": "each operation was timed on the device itself",
    "imported": "measured by somebody else and read from a file",
    "derived": "scaled from measurements of another device or runtime",
    "estimated": "computed from data sheets; the device itself was not timed",
    "modelled": "computed by accelerator models; no board was timed, and nothing validates absolute speed or timing closure",
    "synthetic": "made under emulation; it says how operations compare, not how long they take",
}


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
    """The figures that several sentences use; ``None`` where a run does not know one.

    Attributes:
        on_target: whether ``measured_s`` is of the target device itself.
        measured_word: ``measured``, or ``synthetic`` of an emulated device.
        checks: the targets; what was measured elsewhere than on the target device decides none of them and is left out.
        target: the one on the latency; None of runs of versions that recorded no targets one by one.
    """

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
    measured_word: str = "measured"
    checks: tuple[TargetCheck, ...] = ()
    evaluation: EvaluationRecord | None = None
    target: TargetRecord | None = None

    @property
    def decided_s(self) -> float | None:
        """The latency that decides whether the target holds: measured on the device, without that predicted; None: not known."""
        if not self.checks:
            return self.predicted_s
        latency = self.checks[0]
        return latency.predicted if latency.measured is None else latency.measured

    @property
    def of(self) -> str:
        """What the target is on where it is not the median back to back, after a comma; else empty."""
        latency = self.target
        if latency is None or latency.on_median:
            return ""
        return f", {latency.statistic}{' once a control period' if latency.at == 'period' else ''}"

    @property
    def unknown(self) -> str:
        """Why it is not known whether the latency's target holds; empty where it is."""
        if self.checks:
            return UNKNOWN if self.checks[0].met is None else ""
        return "not known before the end of the run" if self.of else ""

    @property
    def share(self) -> float | None:
        """Share of the teacher's score, counted from a random policy's; of runs that did not play one, from 0, and only where the
        teacher's score is positive."""
        if self.evaluation is not None and self.evaluation.random_mean is not None:
            return self.evaluation.share_of_teacher
        return self.score / self.teacher if self.score is not None and self.teacher is not None and self.teacher > 0 else None

    @property
    def holds(self) -> bool | None:
        """Whether all targets hold: measured on the device, else predicted. Runs of versions that recorded no targets one by one
        hold where the latency does that is predicted, and the one that was measured on the device, too. None: not known."""
        if self.target_s is None or self.predicted_s is None:
            return None
        if self.checks:
            return all_met(self.checks)
        if self.unknown:
            return None
        measured_holds = not self.on_target or self.measured_s is None or self.measured_s <= self.target_s
        return within(self.predicted_s, self.target_s) and measured_holds


def facts(run: Run) -> Facts:
    """The figures of a run, each from the newest file that knows it."""
    summary, agent, device = run.summary, run.agent, run.record.device
    timed = None if agent is None else agent.latency.measured
    provenance = run.record.table.provenance if summary is None else summary.table_provenance
    own = Device(device.name, device.description, device.runtime, device.dtype, device.threads)
    emulated = (
        timed is not None and summary is not None and summary.target_checked_by == f"measurement on {timed.device}, synthetic"
    )
    on_target = timed is not None and not emulated and _on_target(summary, timed, own)
    where = "a device that was not recorded" if timed is None else timed.device
    return Facts(
        score=None if summary is None else summary.score_mean,
        score_ci95=None if summary is None else summary.score_ci95,
        teacher=run.teacher_score,
        predicted_s=run.latency_predicted_s,
        provenance=provenance,
        target_s=run.latency_target_s,
        measured_s=run.latency_measured_s,
        measured_on=f"{where}, emulated" if emulated else where,
        on_target=on_target,
        device=own.table_name,
        measured_word="synthetic" if emulated else "measured",
        checks=() if summary is None else tuple(check if on_target else as_predicted(check) for check in summary.targets),
        evaluation=None if summary is None else summary.evaluation,
        target=run.record.targets[0] if run.record.targets else None,
    )


def _on_target(summary: Summary | None, timed: MeasuredLatency, own: Device) -> bool:
    """Whether the agent was timed on the run's device, in the runtime that its table speaks of where agents run in that one.

    A board that the agent was deployed to is the run's device; tables of data sheets and other tools name none of our runtimes.
    """
    here = {"this": "this machine"}.get(own.name, own.name)
    if timed.device != "this machine" and summary is not None and summary.target_checked_by == f"measurement on {timed.device}":
        return own.runtime not in AGENT_RUNTIMES or timed.identity == own.identity
    return timed.device == here and timed.identity == own.identity


def as_predicted(check: TargetCheck) -> TargetCheck:
    """A target by what is predicted; one on the file is the same anywhere."""
    if check.metric == "file_bytes" or check.measured is None:
        return check
    return replace(check, measured=None, met=None if check.predicted is None else within(check.predicted, check.target))


def progress(run: Run) -> str:
    """How far the run is: ``finished``, or the stage and step of its last line."""
    if run.finished:
        return "finished"
    if not run.metrics:
        return "started, nothing recorded yet"
    last = run.metrics[-1]
    return f"unfinished: {last['stage']}, step {count_text(number(last, 'step'))}"


def verdict(run: Run) -> str:
    """The outcome in one sentence."""
    known = facts(run)
    latency = _latency_clause(known)
    if known.score is None:
        start = f"This run is not judged yet ({progress(run)})"
        return f"{start}; so far the agent {latency}." if latency and known.predicted_s is not None else f"{start}."
    if known.share is not None:
        since = "" if known.evaluation is None else ", counted from a random policy's,"
        score = f"The agent reaches {share_text(known.share)} of its teacher's score{since}"
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
    measured = known.checks[0].measured if known.checks else None
    if measured is not None:
        clause += f", and was measured there at {time_text(measured)}{known.of}"
        broken = "holds" if known.holds else "is broken"
        return f"{clause}: the promise of {time_text(known.target_s)} {broken}"
    if known.unknown:
        promise = f"the promise of {time_text(known.target_s)}{known.of}"
        return f"{clause}, the median back to back; whether {promise} holds is {known.unknown}"
    if known.holds:
        source = "model" if known.provenance == "modelled" else "table"
        limits = "" if known.provenance == "measured" else f", as far as such a {source} can tell"
        chance = known.checks[0].probability if known.checks else None
        said = "" if chance is None else f", with probability {chance:.2f}"
        return f"{clause}: the promise of {time_text(known.target_s)}{known.of} holds{said}{limits}"
    if known.measured_s is not None and within(known.predicted_s, known.target_s):
        clause += f", but was measured there at {time_text(known.measured_s)}"
    return f"{clause}: the promise of {time_text(known.target_s)} is broken"


def _source(provenance: str) -> str:
    if provenance == "modelled":
        return "by an accelerator model"
    return f"from {_article(provenance)} table"


def _policy_tiles(summary: Summary | None) -> list[Tile]:
    """The latency beside that of the policy that the agent was made from; none of another run, and where nobody timed it."""
    policy = None if summary is None else summary.policy
    if policy is None or policy.latency_ratio is None or policy.latency_ratio_range is None:
        return []
    low, high = (share_text(ratio) for ratio in policy.latency_ratio_range)
    detail = f"policy {time_text(policy.latency_measured_s)}, timed in turns; {low} to {high}"
    return [Tile("Of the policy's latency", share_text(policy.latency_ratio), "measured", detail)]


def tiles(run: Run) -> list[Tile]:
    """The key figures, in the order in which a reader asks for them."""
    known, summary = facts(run), run.summary
    timed = None if run.agent is None else run.agent.latency.measured
    where = "" if timed is None else f"median; {timed.device}, {timed.runtime}, {_threads(timed.threads)}"
    params, macs, env_steps = (None, None, None) if summary is None else (summary.params, summary.macs, summary.env_steps)
    teacher = teacher_text(known.teacher, known.evaluation, known.score_ci95 if known.score is not None else None)
    return [
        Tile(metric_label(known.evaluation), score_text(known.score), _word(known.score, "measured"), _episodes(summary)),
        Tile("Of the teacher's score", share_text(known.share), "", teacher),
        Tile(
            "Latency, predicted",
            time_text(known.predicted_s),
            _word(known.predicted_s, known.provenance),
            _promise(known),
            {True: "good", False: "bad", None: ""}[known.holds],
        ),
        Tile(
            "Latency, measured " + ("here" if timed is None or timed.device == "this machine" else f"on {timed.device}"),
            time_text(known.measured_s),
            _word(known.measured_s, known.measured_word),
            where,
        ),
        _paced_tile(run, known.measured_word),
        *_policy_tiles(summary),
        Tile("Parameters", count_text(params), "", "weights and biases"),
        Tile("Multiply-accumulates", count_text(macs), "", "for one decision"),
        Tile("Wall time", duration_text(_wall_s(run)), "", "of the whole run" if run.finished else "so far"),
        Tile("Environment steps", count_text(env_steps), "", "search and retraining"),
    ]


def _paced_tile(run: Run, word: str) -> Tile:
    """What a control loop sees: one decision a period, most of which it sleeps."""
    calls = None if run.agent is None else run.agent.latency.paced
    if calls is None:
        return Tile("Latency at a control period", NOT_MEASURED)
    detail = f"99 of 100 within {time_text(calls.p99_s)}; {count_text(calls.missed)} of {count_text(calls.samples)} missed"
    mood = "bad" if calls.missed else ""
    return Tile(f"Latency, once every {time_text(calls.period_s)}", time_text(calls.p50_s), word, detail, mood)


def _episodes(summary: Summary | None) -> str:
    if summary is None:
        return ""
    cut = f", {count_text(summary.episodes_cut)} of them cut at the limit of steps" if summary.episodes_cut else ""
    cut += solved_text(summary.evaluation)
    if summary.score_ci95 is None:
        return interval_text(None, "episode") + cut
    low, high = summary.score_ci95
    return f"95 %: {score_text(low)} to {score_text(high)}; {count_text(summary.episodes)} episodes{cut}"


def _promise(known: Facts) -> str:
    if known.target_s is None:
        return "no target recorded"
    text = f"target {time_text(known.target_s)}{known.of}"
    if known.unknown:
        return f"{text}: {known.unknown}"
    figure_s = known.decided_s
    if known.holds is None or figure_s is None:
        return text
    if not within(figure_s, known.target_s):
        return f"{text}: broken, {share_text(figure_s / known.target_s - 1)} over"
    spare = share_text(max(0.0, 1 - figure_s / known.target_s))
    if known.holds:
        return f"{text}: holds, {spare} to spare"
    return f"{text}: holds, another target is broken" if known.checks else f"{text}: broken when measured"


def caveats(run: Run) -> list[str]:
    """What a reader should not conclude."""
    known, told = facts(run), []
    if known.predicted_s is not None and known.provenance != "measured":
        source = "an accelerator model" if known.provenance == "modelled" else f"{_article(known.provenance)} table"
        told.append(
            f"The latency for {known.device} rests on {source}: "
            f"{PROVENANCE.get(known.provenance, 'how it was made is not recorded')}."
        )
    if known.measured_s is not None and not known.on_target:
        told.append(f"The latency was timed on {known.measured_on}, not on {known.device}: it does not test the prediction.")
    if run.summary is not None:
        told.append("One seed: another seed may find another architecture and another score.")
        met = run.summary.target_met
        if None not in (known.holds, met) and met != known.holds:
            said = f"The summary says that the target is {'met' if met else 'not met'} ({run.summary.target_checked_by})"
            told.append(f"{said}; the figures above say the contrary.")
        counts = Counts(run.record.space.size, run.record.feasible_architectures, run.record.distinct_networks)
        if counts.few:
            told.append(f"There was little to find: {counts.text()}.")
        left = hardly_learned(run)
        if left is not None:
            told.append(
                f"The shared weights had hardly learned when the search ended: {share_text(left)} of their divergence from the "
                "teacher was left, so their ranking of networks says little; give more budget.search_steps or a smaller space, "
                "or try --preset judged, whose candidates share no weights."
            )
        if run.summary.control is None:
            told.append(
                "No control (strategy random or largest) was finished: how much the search itself contributes is not known."
            )
    anew = [f"{each.stage}, step {each.step:,}: {len(each.environments)}" for each in run.record.fresh_episodes]
    if anew:
        told.append(
            "The run was resumed, or a candidate trained on after a pause, where the environment does not replay; running "
            f"episodes began anew ({'; '.join(anew)})."
        )
    if known.teacher is None:
        told.append("No teacher's score is recorded, so the score has no yardstick.")
    elif known.evaluation is not None and known.evaluation.random_mean is not None:
        if known.share is None:
            told.append("The teacher scores no more than a random policy, so a share of its score is not shown.")
    elif known.teacher <= 0:
        told.append("The teacher's score is not positive, so a share of it is not shown.")
    if known.teacher is not None and known.score is not None and (other := tempered_teacher(run)):
        told.append(other)
    return told


def _wall_s(run: Run) -> float | None:
    walls = [wall for line in run.metrics if (wall := number(line, "wall_s")) is not None]
    return run.summary.wall_s if run.summary is not None else max(walls, default=None)


def _threads(threads: int) -> str:
    return f"{threads} thread" + ("" if threads == 1 else "s")


def _article(word: str) -> str:
    return f"an {word}" if word[:1] in "aeiou" else f"a {word}"


def _word(value: float | None, word: str) -> str:
    return "" if value is None else word


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + "."
