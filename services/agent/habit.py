"""What is usual at this time of day: in which five minutes of past days a resource was so (true, or not 0).

One bit for each five minutes and resource, so two weeks of a presence sensor fit into a kilobyte. A value holds until
the next reading, but no longer than `HOLDS_S`: what nobody reported for longer is unknown, not false. Working days are
compared with working days, weekends with weekends. Holidays are left out on purpose: they look like what they are.

Source: occupancy probability by time of day, as in Scott et al. 2011, PreHeat.
"""

from typing import Final

DAY_S: Final = 86_400.0
BIN_S: Final = 300.0
BINS: Final = int(DAY_S / BIN_S)
HOLDS_S: Final = 1800.0
LONGEST_AHEAD_S: Final = DAY_S
KEPT_DAYS: Final = 60


class Habit:
    """When one resource was so, in the last `KEPT_DAYS` days."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[int, int] = {}  # day since the epoch -> one bit for each five minutes
        self._so: dict[int, int] = {}
        self._last: tuple[float, bool] | None = None

    def add(self, site_s: float, is_so: bool) -> None:
        """Take in a reading; readings come in the order of their time, a late one changes nothing."""
        if self._last is not None:
            before_s, before = self._last
            if site_s < before_s:
                return
            if site_s - before_s <= HOLDS_S:
                for at in range(int(before_s // BIN_S), int(site_s // BIN_S)):
                    self._mark(at, before)
        self._mark(int(site_s // BIN_S), is_so)
        self._last = (site_s, is_so)
        self._forget(int(site_s // DAY_S))

    def share(self, site_s: float, ahead_s: float, over_s: float) -> float | None:
        """Return on which share of past days it was so at some time from now to `ahead_s` later.

        Args:
            site_s: site time now.
            ahead_s: how far the span reaches, from this time of day on.
            over_s: how far back days count.

        Returns:
            0 to 1 over the past days of today's kind (working day or weekend) that are known for at least half of
            the span; None when there is no such day.
        """
        today, first = int(site_s // DAY_S), int(site_s % DAY_S // BIN_S)
        bins = int((site_s % DAY_S + ahead_s) // BIN_S) - first + 1
        span = ((1 << bins) - 1) << first
        days, hits = 0, 0
        for day in self._known:
            if day >= today or today - day > over_s / DAY_S or is_weekend(day) != is_weekend(today):
                continue
            was_so = self._two_days(self._so, day) & span
            if was_so or 2 * (self._two_days(self._known, day) & span).bit_count() >= bins:
                days, hits = days + 1, hits + bool(was_so)
        return hits / days if days else None

    def _two_days(self, bits: dict[int, int], day: int) -> int:
        # A span may reach past midnight.
        return bits.get(day, 0) | bits.get(day + 1, 0) << BINS

    def _mark(self, at: int, is_so: bool) -> None:
        day, place = divmod(at, BINS)
        self._known[day] = self._known.get(day, 0) | 1 << place
        if is_so:
            self._so[day] = self._so.get(day, 0) | 1 << place

    def _forget(self, today: int) -> None:
        for bits in (self._known, self._so):
            for day in [day for day in bits if today - day > KEPT_DAYS]:
                del bits[day]


def is_weekend(day: int) -> bool:
    """Say whether a day since the epoch is a Saturday or Sunday (the epoch began on a Thursday)."""
    return (day + 3) % 7 >= 5
