"""Who has to consent to a class B command, and whether they have: counted over the configured members.

The members are the agents that a command concerns, by the owner's files alone: those that `site.yaml` names, else the
other acting agents that may set the same resource. Not those of a resource that an interlock ties to it: interlocks are
held by the gate, whatever anybody says, and agents know nothing of them. Who is silent, or is not there, has not
consented. Each one's first word counts. Nobody consents to its own command, and where there is no member nobody can
consent: such a command is a person's to let pass. So it is where all others have to consent and an agent file cannot
be read: it may be that of one of them. Pure; whose word it is says the subject, above.

Source: design.md section 3.6 ("B needs the consent of the affected agents … quorum over the configured members").
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from edgeagents.model.site import ResourceRule
from edgeagents.protocol.gate import Key, Rules

Problem: TypeAlias = Literal["", "stranger", "repeated"]


@dataclass(frozen=True, slots=True)
class Poll:
    """What was said on one command so far.

    Args:
        members: who is asked.
        quorum: so many of them are enough.
        consented: who said yes, in the order it was heard.
        refused: who said no, and why.
    """

    members: tuple[str, ...]
    quorum: int
    consented: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def is_carried(self) -> bool:
        """Whether enough have consented."""
        return is_enough(self.consented, self.members, self.quorum)

    @property
    def silent(self) -> tuple[str, ...]:
        """Who has said nothing yet."""
        heard = {*self.consented, *(name for name, _ in self.refused)}
        return tuple(name for name in self.members if name not in heard)


def poll_of(rule: ResourceRule, rules: Rules, key: Key, proposer: str) -> Poll:
    """Return the poll on a command before anybody has spoken; without members nobody can carry it."""
    members = members_of(rule, rules, key, proposer)
    if rule.quorum is not None:
        return Poll(members, rule.quorum)
    # All have to consent: a file that nobody can read may be that of one more, whom nobody can ask.
    is_short = rules.has_unread and not rule.affected
    return Poll(members, len(members) + is_short)


def members_of(rule: ResourceRule, rules: Rules, key: Key, proposer: str) -> tuple[str, ...]:
    """Return the agents whose consent counts for a command, by name.

    Args:
        rule: what `site.yaml` says on the resource.
        rules: the owner's files and core-metadata, as they are now.
        key: the device resource that is to be set.
        proposer: who wants it.
    """
    if rule.affected:
        return tuple(sorted({name for name in rule.affected if name != proposer}))
    device = rules.devices.get(key[0])
    return tuple(
        sorted(
            name
            for name, agent in rules.agents.items()
            if name != proposer
            and agent.mode == "act"
            and device is not None
            and any(permission.resource == key[1] and permission.fits(device) for permission in agent.may)
        )
    )


def said(poll: Poll, member: str, *, yes: bool, reason: str) -> tuple[Poll, Problem]:
    """Return a poll with what somebody said, and why it does not count if it does not; the same word again is none.

    Args:
        poll: as it was.
        member: who speaks, by the subject.
        yes: whether it consents.
        reason: why not, for people.
    """
    if member not in poll.members:
        return poll, "stranger"
    if member not in poll.silent:
        return poll, "" if (member in poll.consented) is yes else "repeated"
    if yes:
        return replace(poll, consented=(*poll.consented, member)), ""
    return replace(poll, refused=(*poll.refused, (member, reason))), ""


def is_enough(consented: Collection[str], members: Collection[str], quorum: int) -> bool:
    """Say whether those who consented are enough of the members; nobody is never enough."""
    return len(set(consented) & set(members)) >= max(1, quorum)


def holds(consented: Collection[str], rule: ResourceRule, rules: Rules, key: Key, proposer: str) -> bool:
    """Say whether consents are enough by the owner's files as they are now: they may have changed meanwhile."""
    poll = poll_of(rule, rules, key, proposer)
    return rule.risk_class == "B" and is_enough(consented, poll.members, poll.quorum)
