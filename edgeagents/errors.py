"""The error tree and its one table: error -> HTTP status, and whether trying again can help.

*Our* mistakes (bugs, wrong configuration) and *theirs* (bad input, an upstream that is away) are parted
by the tree. Adapters turn library errors into these at once, so nothing above them knows nats or httpx.

Source: the status map of EdgeX 4.0 (`edgex-wire.md` section 4).
"""

from typing import NamedTuple


class EdgeAgentsError(Exception):
    """Base of every error this project raises on purpose; its text says what failed, on what, what to try."""


class TheirError(EdgeAgentsError):
    """The other side is wrong or away: bad input, a missing device, a silent service."""


class OurError(EdgeAgentsError):
    """We are wrong: a bug or a configuration that cannot work."""


class InvalidInputError(TheirError):
    """A value, body or message breaks its contract."""


MAX_TEXT = 500
UNEXPECTED = "internal error: see the service's log"  # what a stranger is told of a fault of ours


class MalformedMessageError(InvalidInputError):
    """Bytes that are not the message they claim to be; `cause_kind` groups them for counting.

    Args:
        text: what is wrong, for a person.
        cause_kind: a short stable word for counters, such as ``not-json`` or ``too-large``.
    """

    def __init__(self, text: str, cause_kind: str = "malformed") -> None:
        # The text quotes the message, and a hostile one is long: it must not flood logs and dead letters.
        super().__init__(text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…")
        self.cause_kind = cause_kind


class ModelFileError(InvalidInputError):
    """A model's file or folder is damaged, of an unknown kind, or not what it claims to be."""


class UnauthorisedError(TheirError):
    """No token, or one that is not known."""


class ForbiddenError(TheirError):
    """Known, but not allowed to do this."""


class NotFoundError(TheirError):
    """The named thing does not exist (yet)."""


class NotAllowedError(TheirError):
    """The thing exists but cannot be read or written this way."""


class ConflictError(TheirError):
    """It exists already, or somebody else changed it first."""


class TooLargeError(TheirError):
    """More bytes than the limit in force."""


class RangeError(TheirError):
    """An offset beyond the end of a list."""


class LockedError(TheirError):
    """The device is locked or down."""


class UpstreamError(TheirError):
    """An upstream service answered, but not with what its contract promises."""


class TooManyAttemptsError(TheirError):
    """Asked again too early; `retry_after_s` says in how many seconds it may be tried again."""

    def __init__(self, text: str, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class UnavailableError(TheirError):
    """An upstream service could not be reached, or said it is not available."""


class NobodyThereError(UnavailableError):
    """The broker says that nobody listens where a request went."""


class CredentialsRefusedError(UnavailableError):
    """The broker refused user or password."""


class ForeignDomainError(UnavailableError):
    """Another gateway's JetStream says that it has stored what should be stored here."""


class WithdrawnError(TheirError):
    """A request was called off by the last look before it was sent: certainly not carried out."""


class DeviceSilentError(UnavailableError):
    """No definite answer from a device: a command may or may not have had its effect."""


class ConfigurationError(OurError):
    """A setting, file or environment variable that cannot work; names file, field and remedy."""


class StoreError(OurError):
    """The local state could not be read or written."""


class VolumeFullError(StoreError):
    """There is no room for local state, beyond what is kept for safety commands."""


class Meaning(NamedTuple):
    """What an error means to a caller over HTTP."""

    status: int
    retry: bool


# One place: the most specific class wins, looked up along the method resolution order.
MEANINGS: dict[type[BaseException], Meaning] = {
    InvalidInputError: Meaning(400, False),
    UnauthorisedError: Meaning(401, False),
    ForbiddenError: Meaning(403, False),
    NotFoundError: Meaning(404, False),
    NotAllowedError: Meaning(405, False),
    ConflictError: Meaning(409, False),
    TooLargeError: Meaning(413, False),
    RangeError: Meaning(416, False),
    LockedError: Meaning(423, True),
    WithdrawnError: Meaning(409, False),
    TooManyAttemptsError: Meaning(429, True),
    UpstreamError: Meaning(502, True),
    UnavailableError: Meaning(503, True),
    ConfigurationError: Meaning(500, False),
    StoreError: Meaning(500, True),
    EdgeAgentsError: Meaning(500, False),
}


def meaning_of(error: BaseException) -> Meaning:
    """Return the HTTP status and the retry advice of an error; 500 without retry for one that is not ours."""
    for cls in type(error).__mro__:
        if cls in MEANINGS:
            return MEANINGS[cls]
    return Meaning(500, False)


# The way back: what an EdgeX service's status means to us.
BY_STATUS: dict[int, type[TheirError]] = {
    400: InvalidInputError,
    401: UnauthorisedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: NotAllowedError,
    409: ConflictError,
    413: TooLargeError,
    416: RangeError,
    423: LockedError,
    429: TooManyAttemptsError,
    503: UnavailableError,
}


def error_for_status(status: int, text: str) -> TheirError:
    """Return the error that stands for an EdgeX answer of this status; `UpstreamError` for one not in the map."""
    return BY_STATUS.get(status, UpstreamError)(text)
