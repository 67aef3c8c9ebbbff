from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import report
from benchmarks.measure import Figures
from benchmarks.ratios import Ratio, ratios


def run(job: str, name: str, rate: float | None, cpu: float | None, round_: int = 1) -> Figures:
    return Figures(
        job=job, name=name, round=round_, records=1_000, finished=True, rate=rate, rate_from_launch=rate, cpu=cpu,
        cpu_steady=cpu, peak_mb=100.0, processes=1, first_progress_s=0.5, wrong=(),
    )  # fmt: skip


def only(figures: list[Figures]) -> Ratio:
    (ratio,) = ratios(figures)
    return ratio


def test_a_ratio_is_the_median_of_the_rounds_and_never_mixes_them() -> None:
    figures = [
        run("b", "hand-written", 10, 40, 1), run("b", "streampipe", 60, 10, 1),
        run("b", "hand-written", 20, 40, 2), run("b", "streampipe", 100, 4, 2),
        run("b", "hand-written", 10, 40, 3), run("b", "streampipe", 40, 5, 3),
        run("b", "hand-written", 1, 40, 4),
    ]  # fmt: skip
    assert only(figures) == Ratio("b", "streampipe", "hand-written", 5.0, 8.0, 4.0, met=True)


@pytest.mark.parametrize(("rate", "met"), [(39.99, False), (40.0, True)])
def test_a_target_is_met_from_its_value_on(rate: float, met: bool) -> None:
    assert only([run("b", "hand-written", 10, 40), run("b", "streampipe", rate, 10)]).met is met


@pytest.mark.parametrize("fault", [{"wrong": ("1 missing groups",)}, {"finished": False}])
def test_wrong_or_missing_output_meets_no_target(fault: dict[str, object]) -> None:
    broken = replace(run("b", "streampipe", 1_000, 1), **fault)  # type: ignore[arg-type]  # one of two known fields
    assert only([run("b", "hand-written", 10, 40), broken]).met is False


def test_what_was_not_measured_has_no_ratio() -> None:
    assert ratios([run("b", "streampipe", 10, 1)]) == []
    assert ratios([run("b", "hand-written", 10, 40), run("b", "streampipe", None, None)]) == []


def test_the_document_holds_the_numbers_the_verdicts_and_the_targets() -> None:
    figures = [
        run("d", "hand-written", 10_000, 40),
        replace(run("d", "streampipe", 15_000, 20), wrong=("3 missing groups",)),
    ]
    text = report.markdown(figures, ["Machine: 2 cores"], "# Benchmarks\n")
    assert text.startswith("# Benchmarks\n\n- Machine: 2 cores\n")
    assert "| hand-written | 1,000 | 10,000 |  | 10,000 | 40.00 | 40.00 | 100 | right |" in text
    assert "| streampipe | 1,000 | 15,000 |  | 15,000 | 20.00 | 20.00 | 100 | 3 missing groups |" in text
    assert "| (d) streampipe / hand-written | 1.50 | >= 2 | ✗ | 2.00 |" in text


def test_bars_are_as_long_as_the_rates() -> None:
    figures = [run("a", "hand-written", 100, 1), run("a", "streampipe", 400, 1)]
    bars = [line.count("█") for line in report.chart(report.rows(figures)) if "█" in line]
    assert bars == [40, 10]
