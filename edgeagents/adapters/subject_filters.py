"""Whether a subject is one of those that a filter names.

Source: NATS, subject-based messaging (wildcards).
"""

import re
from collections.abc import Callable


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what says whether a subject fits a filter, whose `*` is one token and whose last `>` one or more."""
    levels = pattern.split(".")
    if not {"*", ">"}.intersection(levels):
        return pattern.__eq__
    parts = [r"[^.]+" if level == "*" else re.escape(level) for level in levels[:-1]]
    parts.append({"*": r"[^.]+", ">": r".+"}.get(levels[-1], re.escape(levels[-1])))
    found = re.compile(r"\.".join(parts))
    return lambda subject: found.fullmatch(subject) is not None
