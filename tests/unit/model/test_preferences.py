"""Preferences files: what makes sense is read, anything else is refused by field and with a remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from edgeagents.adapters.files import load_model
from edgeagents.errors import ConfigurationError
from edgeagents.model.preferences import Preferences, When

SHIPPED = sorted(Path("edgex-profiles/home/preferences").glob("*.yaml"))
WARM: dict[str, Any] = {"of": "t", "shape": {"kind": "linear", "points": [[16, 0], [21, 1]]}}


def read(*parts: dict, **others: Any) -> Preferences:
    return Preferences.model_validate({"agent": "comfort", "parts": list(parts), **others})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_are_read(path: Path) -> None:
    assert load_model(Preferences, path).agent == path.stem


@pytest.mark.parametrize(
    ("parts", "others", "complaint"),
    [
        ([], {}, "at least 1 item"),
        ([WARM | {"weight": -1}], {}, "a weight is never negative"),
        ([WARM | {"weight": float("nan")}], {}, "finite number"),
        ([WARM | {"weight": 0}], {}, "all weights are 0"),
        ([WARM, WARM], {}, "two opinions of one quantity"),
        ([{"of": "t", "shape": {"kind": "linear", "points": [[21, 0], [21, 1]]}}], {}, "points must go up"),
        ([{"of": "t", "shape": {"kind": "linear", "points": [[16, -1], [21, 1]]}}], {}, "greater than or equal to 0"),
        ([{"of": "t", "shape": {"kind": "linear", "points": [[16, 0], [21, 2]]}}], {}, "less than or equal to 1"),
        ([{"of": "t", "shape": {"kind": "linear", "points": [[16, 1], [21, 1]]}}], {}, "nothing is preferred"),
        ([{"of": "t", "shape": {"kind": "quadratic", "best": 21, "width": 0}}], {}, "greater than 0"),
        ([{"of": "t", "shape": {"kind": "threshold"}}], {}, "give above, below or both"),
        ([{"of": "t", "shape": {"kind": "threshold", "above": 5, "below": 3}}], {}, "swap them"),
        (
            [{"of": "t", "shape": {"kind": "threshold", "above": 5, "outside": 1}}],
            {},
            "inside and outside are the same",
        ),
        ([{"of": "t", "shape": {"kind": "spline"}}], {}, "spline"),
        ([WARM | {"when": [{"weight": 1}]}], {}, "give a time"),
        ([WARM | {"when": [{"weight": 1, "since": "7:00"}]}], {}, "since and until, or neither"),
        ([WARM | {"when": [{"weight": 1, "since": "7:00", "until": "25:00"}]}], {}, "is no time of day"),
        ([WARM | {"when": [{"weight": 1, "since": "7:00", "until": "7:00"}]}], {}, "are the same"),
        ([WARM | {"wieght": 1}], {}, "wieght"),
        ([WARM], {"disagreement": 1.0}, "less than 1"),
        ([{"of": "t", "shape": {"kind": "threshold", "above": 5, "inside": 0.5}}], {"disagreement": 0.5}, "lower it"),
    ],
)
def test_what_makes_no_sense_is_refused(parts: list[dict], others: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        read(*parts, **others)


def test_a_refusal_names_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump({"agent": "comfort", "parts": [WARM | {"weight": -1}]}))
    with pytest.raises(ConfigurationError, match=r"bad.yaml: parts.*t: a weight is never negative"):
        load_model(Preferences, path)


@pytest.mark.parametrize("text", ["07:30", "7:30", 450])
def test_a_time_of_day_may_be_written_with_or_without_quotes(text: object) -> None:
    """YAML reads 7:30 without quotes as 450."""
    assert When.model_validate({"weight": 1, "since": text, "until": "24:00"}).since == 27_000.0
    assert yaml.safe_load("a: 7:30") == {"a": 450}


@pytest.mark.parametrize("number", [22, 0, 59, 1441, -60, 22.5, float("nan"), float("inf")])
def test_a_number_that_is_no_time_of_day_is_refused(number: float) -> None:
    """`since: 22` would be 00:22, `1441` 00:24:01."""
    with pytest.raises(ValidationError, match="is no time of day: write it in quotes, as '07:30'"):
        When.model_validate({"weight": 1, "since": number, "until": "24:00"})


def test_a_time_that_was_read_is_read_again() -> None:
    when = When.model_validate({"weight": 1, "since": "22:30", "until": "24:00"})
    assert When.model_validate_json(when.model_dump_json()) == when


@pytest.mark.parametrize(("second", "fits"), [(23 * 3600, True), (3600, True), (6 * 3600, False), (12 * 3600, False)])
def test_a_time_may_go_over_midnight(second: float, fits: bool) -> None:
    assert When(weight=1, since=22 * 3600.0, until=6 * 3600.0).fits(second, frozenset()) is fits
