"""How often an approver's token may be guessed: a few wrong ones are free, then whoever sent them has to wait.

Counted for each client address (IPv6: each /64) and for all together. While an address waits, its tokens are not
even compared, so a right one among them tells nothing. All together make only those wait who were wrong before:
a right token from another address gets through, whoever guesses elsewhere. Callers behind one proxy are one
address. Memory is bounded; a burst of guesses gives one record, however many there were.

Source: NIST SP 800-63B section 5.2.2 (rate limiting).
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgeagents.errors import TooManyAttemptsError

FREE: Final = 5  # wrong tokens of one address
FREE_TOGETHER: Final = 50  # wrong tokens of all addresses
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 300.0
LONGEST_WAIT_TOGETHER_S: Final = 60.0
FORGOTTEN_S: Final = 3600.0  # after so long without a wrong token
MOST_ADDRESSES: Final = 1024
QUIET_S: Final = 5.0  # ends a burst
LONGEST_BURST_S: Final = 60.0  # one that does not end is told of so often
MOST_NAMED: Final = 8


@dataclass(slots=True)
class _Wrong:
    """Wrong tokens so far, and until when their sender has to wait."""

    count: int = 0
    last_s: float = 0.0
    until_s: float = 0.0

    def add(self, now_s: float, free: int, longest_s: float) -> None:
        """Count one more."""
        self.count = self.count + 1 if now_s - self.last_s <= FORGOTTEN_S else 1
        self.last_s = now_s
        over = self.count - free
        if over > 0:
            self.until_s = now_s + min(FIRST_WAIT_S * 2.0 ** min(over - 1, 30), longest_s)


@dataclass(slots=True)
class Burst:
    """Guesses that came one after the other.

    Args:
        began_s, last_s: the first and the newest one, monotonic seconds.
        tried: how many there were.
        compared: how many of them were compared; the others were turned away before.
        addresses: where they came from, the first few.
    """

    began_s: float
    last_s: float
    tried: int = 0
    compared: int = 0
    addresses: list[str] = field(default_factory=list)


class Attempts:
    """What is known of wrong tokens; `now` is monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Start knowing nothing."""
        self._now = now
        self._by_address: OrderedDict[str, _Wrong] = OrderedDict()
        self._together = _Wrong()
        self._burst: Burst | None = None

    def check(self, address: str) -> None:
        """Let an address try a token.

        Raises:
            TooManyAttemptsError: it has to wait; says for how long.
        """
        own = self._by_address.get(_group(address))
        if own is None:
            return
        wait_s = max(own.until_s, self._together.until_s) - self._now()
        if wait_s > 0:
            self._count(address).tried += 1
            raise TooManyAttemptsError(
                f"too many wrong tokens: try again in {wait_s:.0f} s, with the token of the approvers file", wait_s
            )

    def failed(self, address: str) -> bool:
        """Note a wrong token; return whether it begins a burst."""
        is_first, now_s, group = self._burst is None, self._now(), _group(address)
        burst = self._count(address)
        burst.tried += 1
        burst.compared += 1
        own = self._by_address.setdefault(group, _Wrong())
        self._by_address.move_to_end(group)
        own.add(now_s, FREE, LONGEST_WAIT_S)
        self._together.add(now_s, FREE_TOGETHER, LONGEST_WAIT_TOGETHER_S)
        if len(self._by_address) > MOST_ADDRESSES:
            self._by_address.popitem(last=False)
        return is_first

    def succeeded(self, address: str) -> None:
        """Forget the wrong tokens of an address: somebody who is known was there."""
        self._by_address.pop(_group(address), None)

    def ended_burst(self, *, at_once: bool = False) -> Burst | None:
        """Return a burst that is over, or goes on for long, once; `at_once`: whatever there is."""
        burst, now_s = self._burst, self._now()
        if burst is None:
            return None
        if at_once or now_s - burst.last_s >= QUIET_S or now_s - burst.began_s >= LONGEST_BURST_S:
            self._burst = None
            return burst
        return None

    def _count(self, address: str) -> Burst:
        now_s = self._now()
        if self._burst is None:
            self._burst = Burst(now_s, now_s)
        self._burst.last_s = now_s
        named = self._burst.addresses
        if len(named) < MOST_NAMED and address not in named:
            named.append(address)
        return self._burst


def _group(address: str) -> str:
    """Return what counts as one address: of IPv6 a /64, which one caller usually has to itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
