"""Python logging, set up once per process, with EdgeX's levels.

Source: EdgeX `Writable.LogLevel`: TRACE, DEBUG, INFO, WARN, ERROR.
"""

import logging
import sys
from typing import Final

LEVELS: Final = {
    "TRACE": 5, "DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}  # fmt: skip
_CHATTY: Final = ("httpx", "httpcore", "asyncio", "uvicorn.access", "nats")

log = logging.getLogger(__name__)


def configure_logging(key: str, level: str = "INFO") -> None:
    """Write all log records of this process to stderr, each with the service's key; replaces an earlier set-up."""
    logging.addLevelName(5, "TRACE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)-7s {key} %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    set_log_level(level)


def set_log_level(level: str) -> bool:
    """Let records of this level and above through; return False, and change nothing, for an unknown level."""
    number = LEVELS.get(level.strip().upper())
    if number is None:
        log.warning("Writable/LogLevel %r is none of %s: unchanged", level, ", ".join(LEVELS))
        return False
    logging.getLogger().setLevel(number)
    # These tell of every request; they speak up only when something is wrong, unless all is wanted.
    for name in _CHATTY:
        logging.getLogger(name).setLevel(number if number < logging.DEBUG else logging.WARNING)
    return True
