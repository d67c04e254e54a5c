"""`edgeagents explain-preferences`: the chart shows the shape, and bad input is an answer."""

from pathlib import Path

import pytest

from edgeagents.cli.preferences import BLOCKS, COLUMNS, ROWS, chart, extent
from edgeagents.model.preferences import Part, PiecewiseLinear, Quadratic, Threshold
from tests.unit.cli.command import run

COMFORT = "tests/unit/cli/preferences.yaml"


def test_a_chart_is_as_high_as_the_gain_at_each_place() -> None:
    part = Part(of="t", shape=PiecewiseLinear(kind="linear", points=((0.0, 0.0), (10.0, 1.0))))
    rows = [line.plain.partition("│")[2] for line in chart(part)][:ROWS]
    heights = [sum(BLOCKS.index(row[place]) for row in rows) for place in range(COLUMNS)]
    assert heights[0] == 0
    assert heights[-1] == ROWS * (len(BLOCKS) - 1)
    assert heights == sorted(heights)
    assert abs(heights[COLUMNS // 2] - heights[-1] / 2) <= 2


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [
        (PiecewiseLinear(kind="linear", points=((0.0, 0.0), (10.0, 1.0))), -1.0, 11.0),
        (Quadratic(kind="quadratic", best=20.0, width=5.0), 14.0, 26.0),
        (Threshold(kind="threshold", above=10.0), 8.0, 12.0),
        (Threshold(kind="threshold", below=0.0), -1.0, 1.0),
        (Threshold(kind="threshold", above=10.0, below=20.0), 9.0, 21.0),
    ],
)
def test_a_chart_shows_all_that_matters(shape: object, low: float, high: float) -> None:
    assert extent(Part(of="t", shape=shape)) == pytest.approx((low, high))  # type: ignore[arg-type]


def test_a_file_is_explained_for_a_time_and_an_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = ["sensor-living/Temperature=20.0", "sensor-living/CO2=800", "light-living/Switch=1"]
    words = [word for item in outcome for word in ("--of", item)]
    code, out, _ = run(capsys, "explain-preferences", COMFORT, "--at", "23:00", *words)
    assert code == 0
    assert "sensor-living/Temperature in °C: 40% of all now (weight 1)" in out
    assert "that outcome is worth 0.920" in out
    assert (
        "sensor-living/Temperature in °C: 73% of all now (weight 4)"
        in run(capsys, "explain-preferences", COMFORT, "--person", "anna")[1]
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "name at least one preferences file"),
        ([COMFORT, "--at", "25:00"], "--at: '25:00' is no time of day: write 07:30"),
        ([COMFORT, "--of", "t=warm"], "write quantity=number"),
        ([COMFORT, "--of", "t=1"], "the outcome does not say 'sensor-living/Temperature'"),
        (["nowhere.yaml"], "does the file exist"),
        (["edgex-profiles/home/site.yaml"], "agent"),
    ],
)
def test_what_cannot_be_explained_is_an_answer(
    capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    code, _, err = run(capsys, "explain-preferences", *words)
    assert code == 1
    assert complaint in err


def test_text_of_a_file_moves_no_cursor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text('agent: a\nparts: [{of: "t\\e[2J", shape: {kind: quadratic, best: 1, width: 1}}]\n')
    assert "\x1b[2J" not in run(capsys, "explain-preferences", path)[1]
