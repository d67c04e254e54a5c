"""What an error means to a caller over HTTP, and what an EdgeX answer means to us."""

import pytest

from edgeagents import errors


def test_the_most_specific_meaning_wins() -> None:
    assert errors.meaning_of(errors.MalformedMessageError("x", "not-json")) == (400, False)
    assert errors.meaning_of(errors.DeviceSilentError("x")) == (503, True)
    assert errors.meaning_of(errors.LockedError("x")) == (423, True)
    assert errors.meaning_of(errors.ConfigurationError("x")) == (500, False)


def test_an_error_that_is_not_ours_is_a_500_without_retry() -> None:
    assert errors.meaning_of(ZeroDivisionError()) == (500, False)


@pytest.mark.parametrize("status", sorted(errors.BY_STATUS))
def test_a_status_becomes_an_error_that_becomes_the_same_status(status: int) -> None:
    error = errors.error_for_status(status, "device down")
    assert errors.meaning_of(error).status == status
    assert str(error) == "device down"


@pytest.mark.parametrize("status", [500, 501, 502, 504, 207, 418])
def test_a_status_outside_the_map_is_an_upstream_error(status: int) -> None:
    assert type(errors.error_for_status(status, "?")) is errors.UpstreamError


def test_every_error_class_is_ours_or_theirs_and_has_a_meaning() -> None:
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]
    for cls in classes:
        assert issubclass(cls, errors.EdgeAgentsError)
        if cls not in (errors.EdgeAgentsError, errors.OurError, errors.TheirError):
            assert issubclass(cls, errors.OurError) != issubclass(cls, errors.TheirError)
            assert next(base for base in cls.__mro__ if base in errors.MEANINGS) is not errors.EdgeAgentsError, cls


def test_a_malformed_message_quotes_only_so_much_of_it() -> None:
    error = errors.MalformedMessageError("x" * 10_000_000, "not-json")
    assert len(str(error)) == errors.MAX_TEXT
    assert error.cause_kind == "not-json"
