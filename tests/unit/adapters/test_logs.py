"""What others say begins no line of a log, and says nothing to a terminal."""

import io
import logging

import pytest

from edgeagents.adapters.logs import LONGEST, LONGEST_TRACEBACK, LONGEST_VALUE, LineFormatter, set_log_level, shortened

EVIL = "boom\x1b[31m\nERROR fake\r\x9b1A\u2028x\u202eforged\x00"
SHOWN = r"boom\x1b[31m\nERROR fake\r\x9b1A\u2028x\u202eforged\x00"


@pytest.fixture
def written() -> tuple[logging.Logger, io.StringIO]:
    """A logger, and what its handler writes."""
    out, logger = io.StringIO(), logging.Logger("x")
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter("%(levelname)s svc: %(message)s"))
    logger.addHandler(handler)
    return logger, out


def test_a_message_is_one_line_whatever_it_holds(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = written
    logger.error("keeper: %s: 开灯, 21 °C", EVIL)
    assert out.getvalue() == f"ERROR svc: keeper: {SHOWN}: 开灯, 21 °C\n"


def test_other_handlers_get_the_message_as_it_is() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "a\nb", None, None)
    assert LineFormatter("%(message)s").format(record) == r"a\nb"
    assert logging.Formatter("%(message)s").format(record) == "a\nb"
    assert record.message == "a\nb"


def test_a_traceback_keeps_its_lines_and_none_looks_like_a_record(
    written: tuple[logging.Logger, io.StringIO],
) -> None:
    logger, out = written
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("broke")
    first, *lines = out.getvalue().splitlines()
    assert first == "ERROR svc: broke"
    assert lines[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in lines)


def test_a_very_long_traceback_is_cut(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = written
    try:
        raise ValueError("\x00" * 1_000_000)
    except ValueError:
        logger.exception("broke")
    assert len(out.getvalue()) < LONGEST_TRACEBACK + 1000


def test_what_is_escaped_is_cut_too(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, out = written
    logger.error("%s", "\x00" * LONGEST)
    assert len(out.getvalue()) < LONGEST + 100


@pytest.mark.parametrize("letter", ["x", "\x1b"])
def test_a_very_long_message_is_cut(written: tuple[logging.Logger, io.StringIO], letter: str) -> None:
    logger, out = written
    logger.error("%s", letter * 1_000_000)
    assert len(out.getvalue()) < LONGEST + 100
    assert out.getvalue().endswith("… (1000000 characters)\n")
    logger.error("%s", "y" * LONGEST)
    assert out.getvalue().endswith("y\n")


def test_a_level_that_is_none_is_told_by_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().level
    assert set_log_level("x" * 100_000) is False
    assert logging.getLogger().level == before
    [record] = caplog.records
    assert f"{'x' * LONGEST_VALUE}… (100000 characters)' is none of TRACE" in record.getMessage()
    assert len(record.getMessage()) < 250


def test_what_is_short_stays() -> None:
    assert shortened("x" * LONGEST_VALUE) == "x" * LONGEST_VALUE
