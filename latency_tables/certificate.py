"""The certificate of a table: how well it predicts whole networks that were measured and never used for a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from latency_tables.errors import TableError
from latency_tables.header import MAX_LATENCY_S
from latency_tables.text.fields import integer, number, number_or_none, object_of

MAX_NETWORKS = 10**6
OTHER_WAYS = ("uncalibrated", "flops", "single_operations", "repeat")


@dataclass(frozen=True)
class Accuracy:
    """How well predicted latencies (or energies) fit measured ones; shares and errors as fractions.

    Attributes:
        networks: how many.
        mape, median_ape, max_ape: mean, median and largest absolute relative error.
        within_5, within_10: share of networks within 5 and 10 %.
        bias: mean signed relative error; positive: predicted too slow.
        kendall_tau: rank agreement; None below 3 networks or where one side is constant.
        r2: share of the variance that is explained; None where the measured side is constant, or unrecorded.
    """

    networks: int
    mape: float
    within_5: float
    within_10: float
    bias: float
    kendall_tau: float | None
    median_ape: float | None = None
    max_ape: float | None = None
    r2: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON object; :func:`read_accuracy` reads it back."""
        return asdict(self)

    def short(self) -> dict[str, object]:
        """The figures that every certificate has, as a JSON object."""
        return {"networks": self.networks, **self.figures()}

    def figures(self) -> dict[str, float | None]:
        """The figures that are shown side by side."""
        return {
            "mape": self.mape,
            "within_5": self.within_5,
            "within_10": self.within_10,
            "kendall_tau": self.kendall_tau,
            "bias": self.bias,
        }


@dataclass(frozen=True)
class Sample:
    """One sample of networks: predicted from the rows, and in :data:`OTHER_WAYS` beside it, as far as these were recorded."""

    accuracy: Accuracy
    others: Mapping[str, Accuracy]


@dataclass(frozen=True)
class Certificate:
    """Whole networks that took no part in any fit.

    Attributes:
        sample: networks from the whole range of work of the space.
        uniform: networks drawn uniformly, or None.
        energy: accuracy of energies from rows, and of constant power times predicted time; None where energy is unknown.
        predicted_s, measured_s: seconds of the networks of ``sample``, one by one.
        record: everything, as it stands in the file.
    """

    sample: Sample
    uniform: Sample | None
    energy: tuple[Accuracy, Accuracy] | None
    predicted_s: tuple[float, ...]
    measured_s: tuple[float, ...]
    record: Mapping[str, object]

    @property
    def accuracy(self) -> Accuracy:
        """Of the table on ``sample``: what the table promises."""
        return self.sample.accuracy

    def residuals(self, statistic: str = "median", period_s: float | None = None) -> tuple[tuple[float, float], ...]:
        """Predicted and measured seconds of each network; none where nobody measured that.

        Args:
            statistic: ``median`` or ``p99``, the latter at a period alone.
            period_s: of calls at a control period, seconds; None: back to back.
        """
        if period_s is None:
            return tuple(zip(self.predicted_s, self.measured_s)) if statistic == "median" else ()
        calls = self.record.get("paced")
        times = calls.get("p50_s" if statistic == "median" else "p99_s") if isinstance(calls, dict) else None
        if not isinstance(calls, dict) or calls.get("period_s") != period_s or not isinstance(times, list):
            return ()
        return tuple(zip(self.predicted_s, map(float, times))) if len(times) == len(self.predicted_s) else ()


def chance_within(ratios: Sequence[float], most: float) -> float | None:
    """Probability that one more network measures at most ``most`` times its prediction.

    Of n networks that are alike, k of which keep that, one more does with k / (n + 1): the distribution of their residuals, with
    the new one counted among those that do not. Neither 1 nor anything between the residuals is ever said.

    Args:
        ratios: measured by predicted, of networks that took no part in any fit.
        most: the bound by the prediction.

    Returns:
        None without networks.
    """
    return sum(ratio <= most for ratio in ratios) / (len(ratios) + 1) if ratios else None


def read_accuracy(value: object, where: str) -> Accuracy:
    """The figures that :meth:`Accuracy.to_dict` or :meth:`Accuracy.short` wrote.

    Raises:
        TableError: one is absent or out of range.
    """
    figures = object_of(value, where, "its figures")
    networks = integer(figures.get("networks"), f"{where}.networks", low=1, high=MAX_NETWORKS)
    mape = number(figures.get("mape"), f"{where}.mape", low=0, high=100)
    within_5, within_10 = (number(figures.get(f"within_{n}"), f"{where}.within_{n}", low=0, high=1) for n in (5, 10))
    bias = number(figures.get("bias"), f"{where}.bias", low=-100, high=100)
    tau = number_or_none(figures.get("kendall_tau"), f"{where}.kendall_tau", low=-1, high=1)
    return Accuracy(networks, mape, within_5, within_10, bias, tau)


def read_certificate(record: Mapping[str, object], where: str) -> Certificate:
    """The certificate in a table's last line.

    Raises:
        TableError: a figure is absent or out of range.
    """
    sample = _read_sample(record, f"{where}: certificate")
    uniform = None if record.get("uniform") is None else _read_sample(record["uniform"], f"{where}: certificate.uniform")
    energy = None
    if record.get("energy") is not None:
        parts = object_of(record["energy"], f"{where}: certificate.energy", "rows and power_times_time, or null")
        rows, trivial = (read_accuracy(parts.get(n), f"{where}: certificate.energy.{n}") for n in ("rows", "power_times_time"))
        energy = (rows, trivial)
    predicted, measured = (_read_times(record.get(name, []), where) for name in ("predicted_s", "measured_s"))
    if len(predicted) != len(measured):
        raise TableError(f"{where}: certificate.predicted_s and measured_s must be lists of the same length")
    return Certificate(sample, uniform, energy, predicted, measured, record)


def _read_sample(value: object, where: str) -> Sample:
    accuracy, figures = read_accuracy(value, where), object_of(value, where, "its figures")
    others = {name: read_accuracy(figures[name], f"{where}.{name}") for name in OTHER_WAYS if figures.get(name) is not None}
    return Sample(accuracy, others)


def _read_times(values: object, where: str) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise TableError(f"{where}: certificate.predicted_s and measured_s must be lists of the same length")
    return tuple(number(v, f"{where}: a time of the certificate", low=0, high=MAX_LATENCY_S, positive=True) for v in values)
