"""Settings from the environment: limits, secrets from files, mistyped variables, site time."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeagents.errors import ConfigurationError
from edgeagents.settings import BusSettings, SiteTime, SiteTimeSettings, check_environment, read_secret


def test_settings_come_from_prefixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAGENTS_GATEWAY", "gw-7")
    monkeypatch.setenv("EDGEAGENTS_EDGEX_BUS", "nats-core")
    monkeypatch.setenv("EDGEAGENTS_SITE_TIME_FACTOR", "60")
    assert (BusSettings().gateway, BusSettings().edgex_bus) == ("gw-7", "nats-core")
    assert SiteTimeSettings().factor == 60


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EDGEAGENTS_EDGEX_BUS", "redis"),
        ("EDGEAGENTS_EDGEX_FORMAT", "xml"),
        ("EDGEAGENTS_GATEWAY", ""),
        ("EDGEAGENTS_EDGEX_BASE", ""),
        ("EDGEAGENTS_CONNECT_TIMEOUT_S", "0"),
        ("EDGEAGENTS_CONNECT_TIMEOUT_S", "inf"),
        ("EDGEAGENTS_CONNECT_TIMEOUT_S", "soon"),
        ("EDGEAGENTS_SITE_TIME_FACTOR", "0"),
        ("EDGEAGENTS_SITE_TIME_FACTOR", "nan"),
        ("EDGEAGENTS_SITE_TIME_FACTOR", "1e9"),
        ("EDGEAGENTS_SITE_TIME_START_S", "inf"),
        ("EDGEAGENTS_SITE_TIME_WALL_START_S", "-1"),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    cls = SiteTimeSettings if "SITE_TIME" in variable else BusSettings
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError) as caught:
        cls()
    prefix = str(cls.model_config["env_prefix"])
    assert [error["loc"] for error in caught.value.errors()] == [(variable.removeprefix(prefix).lower(),)]


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        BusSettings().gateway = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("EDGEAGENTS_GATWAY", "EDGEAGENTS_GATEWAY"),
        ("EDGEAGENTS_NATS_PASSWORD", "EDGEAGENTS_NATS_PASSWORD_FILE"),
        ("EDGEAGENTS_SITETIME_FACTOR", "EDGEAGENTS_SITE_TIME_FACTOR"),
        ("edgeagents_gatway", "EDGEAGENTS_GATEWAY"),
    ],
)
def test_a_mistyped_variable_is_refused_with_the_one_that_was_meant(variable: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_environment([BusSettings, SiteTimeSettings], {variable: "x"})
    assert variable in str(caught.value)
    assert f"did you mean {meant}?" in str(caught.value)


def test_a_variable_like_no_other_is_refused_with_all_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"EDGEAGENTS_QQQQ is not a setting.*EDGEAGENTS_NATS_URL"):
        check_environment(BusSettings, {"EDGEAGENTS_QQQQ": "x"})


def test_known_and_foreign_variables_pass() -> None:
    names = {"EDGEAGENTS_GATEWAY": "a", "edgeagents_nats_url": "b", "EDGEX_PROFILE": "c", "PATH": "/bin"}
    check_environment([BusSettings, SiteTimeSettings], names)


def test_a_secret_is_read_stripped_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" s3cret\n")
    settings = BusSettings(nats_password_file=file)
    assert settings.password is not None
    assert settings.password.get_secret_value() == "s3cret"
    assert "s3cret" not in f"{settings!r} {settings.password!r}"
    assert BusSettings().password is None


def test_a_secret_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", tmp_path, empty, binary):
        with pytest.raises(ConfigurationError) as caught:
            read_secret(path)
        assert str(path) in str(caught.value)


def test_site_time_is_wall_time_by_default() -> None:
    assert SiteTimeSettings().clock().at(1_764_000_000.5) == 1_764_000_000.5


def test_site_time_runs_n_times_faster_from_its_start() -> None:
    clock = SiteTime(start_s=1_000_000.0, wall_start_s=500.0, factor=60.0)
    assert clock.at(500.0) == 1_000_000.0
    assert clock.at(501.0) == 1_000_060.0
    assert clock.at(499.0) == 999_940.0
    assert clock.at_ns(501_000_000_000) == 1_000_060.0
    assert clock.wall_duration_s(60.0) == 1.0


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.floats(0.01, 100_000), st.floats(0, 4e9), st.floats(0.001, 1e6))
def test_a_span_of_site_time_takes_its_wall_time(t0: float, w0: float, n: float, wall: float, span: float) -> None:
    clock = SiteTime(t0, w0, n)
    later = clock.at(wall + clock.wall_duration_s(span))
    # What a double can hold of the times involved bounds the error.
    scale = max(abs(clock.at(wall)), n * max(wall, w0), t0, 1.0)
    assert math.isclose(later - clock.at(wall), span, rel_tol=1e-9, abs_tol=scale * 1e-12)
