"""Estimators, calibration and certificate figures against closed forms and brute force."""

import itertools

import numpy as np
import pytest

from latency_tables.board.timing import Visit
from latency_tables.errors import MeasurementError
from latency_tables.measuring.statistics import (
    accuracy,
    calibrate,
    correct_rows,
    difference,
    fit_line,
    model_time_s,
    paired_visits,
)


def seen(median_s, *, share=1.0, spread=0.0, least=None):
    low, high = median_s - spread, median_s + spread
    return Visit(median_s, low, high, least or low, low, high, high, 50, 1, share)


def test_model_time_uses_clean_visits_only():
    visits = [seen(3.0), seen(1.0, share=0.1), seen(5.0), seen(4.0)]
    assert model_time_s(visits) == 4.0 and model_time_s(visits, "min") == 3.0
    assert model_time_s([seen(3.0, share=0.2, least=2.5), seen(4.0, share=0.3)]) == 2.5
    assert model_time_s([seen(3.0, share=None), seen(5.0, share=None)]) == 4.0
    with pytest.raises(MeasurementError):
        model_time_s([])


def test_difference_has_the_slope_and_an_interval_that_shrinks():
    less, more = [seen(1.0)] * 5, [seen(9.0)] * 5
    assert difference(more, less, 4) == (2.0, 2.0, 2.0)
    wide = difference([seen(9.0, spread=0.4)] * 3, less, 4)
    narrow = difference([seen(9.0, spread=0.4)] * 30, less, 4)
    assert wide[1] < 2.0 < wide[2] and (narrow[2] - narrow[1]) < 0.6 * (wide[2] - wide[1])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        visits = [seen(float(v), spread=0.001) for v in rng.normal(10, 0.3, 15)]
        _, low, high = difference(visits, None, 1, seed=trial)
        hits += low <= 10 <= high
    assert 0.85 <= hits / 200 <= 1.0


def test_calibration_recovers_a_scale_and_needs_a_reason_for_an_offset():
    sums = np.array([1.0, 1.1, 1.25, 1.3, 1.4, 1.5, 1.6])
    plain = calibrate(sums, 0.01 + 1.05 * sums, overhead_s=0.01)
    assert plain.method == "scale" and plain.scale == pytest.approx(1.05) and plain.overhead_s == 0.01
    offset = calibrate(sums, 0.5 + 1.05 * sums, overhead_s=0.01)
    assert offset.method == "affine" and offset.overhead_s == pytest.approx(0.5) and offset.scale == pytest.approx(1.05)
    few = calibrate(sums[:2], sums[:2], overhead_s=0.01)
    assert few.networks == 0 and few.scale == 1.0 and few.interval_factors is None


def test_calibration_never_gives_a_negative_overhead():
    sums = np.linspace(1, 2, 9)
    fit = calibrate(sums, 1.3 * sums - 0.25, overhead_s=0.0)
    assert fit.overhead_s >= 0 and fit.scale > 0


def test_scale_is_the_least_relative_square():
    rng = np.random.default_rng(1)
    sums = rng.uniform(1, 3, 12)
    measured = 1.2 * sums * rng.uniform(0.95, 1.05, 12)
    scale = calibrate(sums, measured, overhead_s=0.0).scale

    def loss(s):
        return (((s * sums - measured) / measured) ** 2).sum()

    assert loss(scale) <= min(loss(scale * 1.0005), loss(scale * 0.9995))


def test_interval_factors_hold_every_left_out_network():
    rng = np.random.default_rng(2)
    sums = rng.uniform(1, 3, 15)
    measured = sums * rng.uniform(0.9, 1.1, 15)
    fit, ratios = calibrate(sums, measured, overhead_s=0.0), []
    for out in range(15):  # the scale of least relative squares of the others, by its normal equation
        x, m = np.delete(sums, out), np.delete(measured, out)
        ratios.append(measured[out] / (sums[out] * (x / m).sum() / ((x / m) ** 2).sum()))
    assert fit.method == "scale" and fit.interval_factors == pytest.approx((min(ratios), max(ratios)))
    assert fit.mape == pytest.approx(np.mean([abs(1.0 / ratio - 1.0) for ratio in ratios]))


def test_accuracy_by_hand():
    figures = accuracy([1.04, 2.0, 3.6, 4.0], [1.0, 2.0, 4.0, 5.0])
    assert figures.mape == pytest.approx((0.04 + 0 + 0.1 + 0.2) / 4) and figures.bias == pytest.approx((0.04 - 0.1 - 0.2) / 4)
    assert figures.within_5 == 0.5 and figures.within_10 == 0.75 and figures.max_ape == pytest.approx(0.2)
    assert figures.kendall_tau == 1.0


def test_tau_against_all_pairs():
    rng = np.random.default_rng(3)
    a, b = rng.permutation(9) + 1.0, rng.permutation(9) + 1.0
    signs = [np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in itertools.combinations(range(9), 2)]
    assert accuracy(a, b).kendall_tau == pytest.approx(np.mean(signs))
    assert accuracy([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).kendall_tau is None


def test_line_goes_through_points_on_a_line():
    intercept, slope = fit_line([1.0, 2.0, 5.0], [3.0, 5.0, 11.0])
    assert (intercept, slope) == pytest.approx((1.0, 2.0))


def test_corrections_find_a_row_that_costs_more_inside_networks_and_leave_good_rows_alone():
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 3, (40, 8)).astype(float) + 0.1
    parts = counts * np.linspace(1.0, 2.0, 8)
    truth = np.array([1, 1, 1.3, 1, 1, 1, 0.9, 1])
    correction = correct_rows(parts, parts @ truth + 0.5, 0.5)
    assert correction.ridge is not None and correction.factors == pytest.approx(truth, abs=0.02) and correction.mape < 0.01
    noise = parts.sum(axis=1) * rng.normal(1, 0.01, 40) + 0.5
    assert np.abs(correct_rows(parts, noise, 0.5).factors - 1).max() < 0.03
    exact = correct_rows(parts, parts.sum(axis=1) + 0.5, 0.5)
    assert exact.ridge is None and (exact.factors == 1).all()


def test_no_correction_makes_a_row_negative():
    """Networks with the small row are faster than those without it: what fits best is a negative row."""
    rng = np.random.default_rng(0)
    big, has = rng.uniform(60.0, 160.0, 30), rng.random(30) < 0.5
    parts = np.stack([big, np.where(has, 6.0, 0.0)], axis=1)
    for saved, left in ((4.0, 4), (8.0, 3), (12.0, 1), (16.0, 1)):
        measured = 8.0 + big + np.where(has, 6.0 - saved, 0.0) + rng.normal(0, 0.3, 30)
        found = correct_rows(parts, measured, 8.0)
        factors = {ridge: ridge_by_hand(parts, measured, 8.0, ridge) for ridge in (0.1, 0.03, 0.01, 0.003)}
        usable = [ridge for ridge, both in factors.items() if min(both) > 0]
        assert len(usable) == left and found.ridge == usable[-1], "the weakest one that leaves all above 0 fits best here"
        assert found.factors == pytest.approx(factors[found.ridge]) and found.interval_factors[0] > 0


def ridge_by_hand(parts, measured, overhead, ridge):
    """Factors of two rows: the normal equations of the relative error by Cramer's rule."""
    rows = [(a / m, b / m, (m - overhead - a - b) / m) for (a, b), m in zip(parts.tolist(), measured.tolist())]
    aa, ab, bb = (sum(x[i] * x[j] for x in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    ar, br = (sum(x[i] * x[2] for x in rows) for i in (0, 1))
    determinant = (aa + ridge) * (bb + ridge) - ab * ab
    return 1 + (ar * (bb + ridge) - br * ab) / determinant, 1 + (br * (aa + ridge) - ar * ab) / determinant


def test_paired_visits_take_out_what_the_sentinel_saw():
    slow = [Visit(*(2.0 * f,) * 7, 50, 1, 1.0, sentinel_s=f) for f in (1.0, 1.4, 1.1)]
    assert [v.median_s for v in paired_visits({"a": slow})["a"]] == pytest.approx([2.2] * 3)
    plain = [seen(3.0)]
    assert paired_visits({"a": plain})["a"] == plain


def one_row_by_hand(parts, measured, overhead):
    """Corrections of a single row: each sum of the ridge regression is a number; leaving a network out takes one term away."""
    share = [p / m for p, m in zip(parts, measured)]
    rest = [(m - overhead) / m - d for m, d in zip(measured, share)]

    def fitted(kept, ridge):
        return sum(share[i] * rest[i] for i in kept) / (sum(share[i] ** 2 for i in kept) + ridge)

    everyone = range(len(parts))
    best, found, left = 0.9 * np.mean(np.abs(rest)), None, rest
    for ridge in (0.1, 0.03, 0.01, 0.003):
        out = [rest[i] - share[i] * fitted([j for j in everyone if j != i], ridge) for i in everyone]
        if np.mean(np.abs(out)) < best:
            best, found, left = np.mean(np.abs(out)), ridge, out
    ratios = [1 / (1 - v) for v in left]
    factor = 1.0 if found is None else 1 + fitted(everyone, found)
    return factor, found, np.mean(np.abs(left)), (min(1.0, *ratios), max(1.0, *ratios))


def test_corrections_of_one_row_by_hand():
    ridges = set()
    for seed in range(40):
        draw = np.random.default_rng(seed)
        parts = draw.uniform(0.5, 3.0, 6)
        measured = 0.4 + parts * draw.choice([1.0, 1.02, 1.1, 0.8]) * draw.normal(1.0, draw.choice([0.01, 0.05, 0.1]), 6)
        found = correct_rows(parts[:, None], measured, 0.4)
        factor, ridge, error, interval = one_row_by_hand(parts, measured, 0.4)
        assert found.ridge == ridge and found.factors.tolist() == pytest.approx([factor]) and found.mape == pytest.approx(error)
        assert found.interval_factors == pytest.approx(interval)
        ridges.add(ridge)
    assert {None, 0.1, 0.003} <= ridges, "every outcome occurs"


def test_calibration_by_hand_where_the_line_would_start_below_zero_or_rise_slowly():
    sums = np.linspace(1, 2, 9)
    fit = calibrate(sums, 1.3 * sums - 0.05, overhead_s=0.6)
    weights = (1.3 * sums - 0.05) ** -2.0
    wanted = (weights * sums * (1.3 * sums - 0.05)).sum() / (weights * sums * sums).sum()
    assert (fit.method, fit.overhead_s) == ("affine", 0.0) and fit.scale == pytest.approx(wanted)
    slow = calibrate(sums, 0.5 + 0.25 * sums, overhead_s=0.0)
    assert slow.method == "affine" and (slow.overhead_s, slow.scale) == pytest.approx((0.5, 0.25))
    none = calibrate(sums[:2], sums[:2], overhead_s=0.01)
    assert none.to_dict() == {
        "overhead_s": 0.01,
        "scale": 1.0,
        "networks": 0,
        "method": "none: fewer than 3 networks",
        "mape": None,
        "interval_factors": None,
        "ridge": None,
    }


@pytest.mark.parametrize("estimator, middle", [("median", np.median), ("min", min)])
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_a_difference_has_the_quantiles_of_a_loop_over_the_same_draws(estimator, middle, share):
    """Visits of which most samples were preempted are left out, unless there are no others."""
    more, less = (
        [seen(float(v), spread=0.02, share=share) for v in np.random.default_rng(n).normal(5.0, 0.5, 7)] for n in (1, 2)
    )
    stream, error = np.random.default_rng(0), 0.04 / (2 * 1.96)

    def drawn(visits):
        chosen = stream.integers(0, 7, (200, 7))
        noise = stream.standard_normal((200, 7))
        return [middle([visits[i].median_s + error * e for i, e in zip(*row)]) for row in zip(chosen, noise)]

    samples = np.array(drawn(more)) - np.array(drawn(less))
    asked = more if share < 0.5 else [seen(9.0, share=0.1), *more]
    value, low, high = difference(asked, less, 3, estimator=estimator)
    wanted = [np.quantile(samples, q) / 3 for q in (0.025, 0.975)]
    if share < 0.5:  # no visit was clean: the smallest samples of all
        least = (min(v.min_s for v in more) - min(v.min_s for v in less)) / 3
        assert value == pytest.approx(least) and [low, high] == pytest.approx([min(least, wanted[0]), max(least, wanted[1])])
    else:
        assert value == pytest.approx((middle([v.median_s for v in more]) - middle([v.median_s for v in less])) / 3)
        assert [low, high] == pytest.approx([min(value, wanted[0]), max(value, wanted[1])])
        assert difference(asked, less, 3, estimator=estimator, seed=5) != (value, low, high)


def test_three_networks_are_enough_for_a_scale_and_half_clean_is_clean():
    fit = calibrate([1.0, 2.0, 3.0], [1.1, 2.2, 3.3], overhead_s=0.0)
    assert fit.networks == 3 and fit.scale == pytest.approx(1.1)
    assert model_time_s([seen(3.0, share=0.5), seen(9.0, share=0.49)]) == 3.0
    assert accuracy([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).kendall_tau == pytest.approx(1.0)
    assert accuracy([1.0, 2.0], [1.0, 2.0]).kendall_tau is None


def test_every_figure_of_the_accuracy_by_hand():
    figures = accuracy([1.04, 2.16, 3.0, 3.2], [1.0, 2.0, 3.0, 4.0])
    assert figures.median_ape == pytest.approx(0.06) and figures.networks == 4 and figures.within_10 == pytest.approx(0.75)
    assert figures.r2 == pytest.approx(1 - (0.04**2 + 0.16**2 + 0.8**2) / 5.0)
    same = accuracy([1, 2], [2, 2])
    assert same.r2 is None and same.kendall_tau is None and same.mape == 0.25 == -same.bias


def test_whole_numbers_are_times_like_any_other():
    assert fit_line([1, 2, 5], [3, 5, 11]) == pytest.approx((1.0, 2.0))
    single = np.array([1.1, 2.3, 5.7], np.float32)
    assert fit_line(single, single) == pytest.approx(fit_line(single.astype(float), single.astype(float)), rel=1e-12, abs=1e-12)


def test_estimators_have_names():
    with pytest.raises(ValueError, match=r"^estimator must be one of median, paired, min, got 'mean'$"):
        model_time_s([seen(1.0)], "mean")
    with pytest.raises(MeasurementError, match=r"^a model was never visited; give the measurement more time$"):
        model_time_s([])
