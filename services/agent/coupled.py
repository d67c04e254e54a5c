"""What stands against a wish without being the same resource: another one that is active and coupled with it. Pure.

Couplings come from tags in profiles (`protocol/couplings.py`), which agents read in core-metadata; the owner's
interlocks are the guard's alone, which refuses whatever nobody has settled. What is active is what the agent sees, so
only what it watches can stand against its wishes, and only what its file negotiates about is brought before others.

Source: design.md section 5; docs/conflicts.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeagents.model.agent import Intent, Sample
from edgeagents.protocol.couplings import Coupling, Kinds, meets
from edgeagents.protocol.gate import Key
from services.agent.bargaining import value_of


@dataclass(frozen=True, slots=True)
class Against:
    """A resource that is active while a wish of ours would be; `wanted`: the first value of it that lets both be."""

    key: Key
    wanted: str
    coupling: str


def standing_against(
    intent: Intent, couplings: Iterable[Coupling], kinds: Kinds, latest: Callable[[Key], Sample | None],
    options: Mapping[Key, Sequence[str]],
) -> Against | None:  # fmt: skip
    """Return the first resource that stands against a wish and that can be negotiated about, None when none does.

    Args:
        intent: the wish.
        couplings: conditions of which at most one may hold.
        kinds: value types of resources.
        latest: the newest sample of a resource.
        options: what we could live with, of each resource that we negotiate about.
    """
    key = (intent.device, intent.resource)
    for coupling in couplings:
        ours = [item for item in coupling.members if (item.device, item.resource) == key]
        if not any(meets(item, intent.value, kinds.get(key, "")) for item in ours):
            continue
        for item in coupling.members:
            other = (item.device, item.resource)
            sample = latest(other)
            if other == key or sample is None or not meets(item, sample.value, kinds.get(other, "")):
                continue
            for option in options.get(other, ()):
                if not meets(item, value_of(option), kinds.get(other, "")):
                    return Against(other, option, coupling.name)
    return None
