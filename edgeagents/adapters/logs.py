"""Python logging, set up once per process, with EdgeX's levels.

What others say is in many a message, and in the text of errors: it starts no line of its own, and says nothing to a
terminal.

Source: EdgeX `Writable.LogLevel`: TRACE, DEBUG, INFO, WARN, ERROR.
"""

import logging
import re
import sys
from typing import Final

LEVELS: Final = {
    "TRACE": 5, "DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}  # fmt: skip
LONGEST: Final = 8000  # letters of a message: one names every wrong field of a file
LONGEST_TRACEBACK: Final = 32_000
LONGEST_VALUE: Final = 80  # of what somebody wrote where a word of ours belongs
_CHATTY: Final = ("httpx", "httpcore", "asyncio", "uvicorn.access", "nats")
# C0, DEL and C1; what ends a line elsewhere (U+2028, U+2029) or turns it around (U+202A to U+202E, U+2066 to U+2069).
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_UNSAFE_IN_LINES: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

log = logging.getLogger(__name__)


class LineFormatter(logging.Formatter):
    """A line for each record, whatever its message holds; a traceback follows in lines of its own, moved in."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """Return the record's line; its message is escaped, and cut when it is very long."""
        said = record.message
        record.message = _bounded(_UNSAFE, said, LONGEST)
        try:
            return super().formatMessage(record)
        finally:
            record.message = said  # other handlers have their own idea of it

    def formatException(self, ei: object) -> str:
        """Return a traceback: what an error says may hold lines, too, and none of them looks like a record."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "  " + _bounded(_UNSAFE_IN_LINES, text, LONGEST_TRACEBACK).replace("\n", "\n  ")


def shortened(text: str, most: int = LONGEST_VALUE, length: int | None = None) -> str:
    """Return a text that is too long as its beginning, and how long it is."""
    whole = len(text) if length is None else length
    return text if whole <= most else f"{text[:most]}… ({whole} characters)"


def _bounded(unsafe: re.Pattern[str], text: str, most: int) -> str:
    """Return a text escaped, and cut where it is longer than `most`, as it is written."""
    begun = unsafe.sub(_escape, text[: most + 1])
    return shortened(begun, most, max(len(begun), len(text)))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def configure_logging(key: str, level: str = "INFO") -> None:
    """Write all log records of this process to stderr, each with the service's key; replaces an earlier set-up."""
    logging.addLevelName(5, "TRACE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(f"%(asctime)s %(levelname)-7s {key} %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    set_log_level(level)


def set_log_level(level: str) -> bool:
    """Let records of this level and above through; return False, and change nothing, for an unknown level."""
    number = LEVELS.get(level.strip().upper())
    if number is None:
        log.warning("Writable/LogLevel %r is none of %s: unchanged", shortened(level), ", ".join(LEVELS))
        return False
    logging.getLogger().setLevel(number)
    # These tell of every request; they speak up only when something is wrong, unless all is wanted.
    for name in _CHATTY:
        logging.getLogger(name).setLevel(number if number < logging.DEBUG else logging.WARNING)
    return True
