"""What agents say to each other when they share work or settle a conflict: FIPA's communicative acts.

One envelope, `Act`; the content field that fits its performative says what it is about. Who sent it is a token of
its subject, never a field, so nobody speaks for another. An act says which version of the contract its writer speaks
and which one its reader needs: an older agent understands a newer one that only added fields, and refuses by name
what it cannot act on.

Source: proto/edgeagents/v1/cooperation.proto; FIPA SC00037J (communicative acts), SC00029H (contract net).
"""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from edgeagents.model.message import MAX_REASON_CHARS, Message, Word

VERSION: Final = 1
MOST_ITEMS: Final = 1024  # of any list in an act
MOST_PARTIES: Final = 5  # of one conflict

Performative: TypeAlias = Literal[
    "cfp", "propose", "refuse", "accept-proposal", "reject-proposal", "inform", "failure", "cancel", "not-understood"
]
PERFORMATIVES: Final[tuple[Performative, ...]] = (
    "cfp", "propose", "refuse", "accept-proposal", "reject-proposal", "inform", "failure", "cancel", "not-understood",
)  # fmt: skip
Phase: TypeAlias = Literal["bidding", "final", "voting"]
Words: TypeAlias = Annotated[tuple[Word, ...], Field(max_length=MOST_ITEMS)]
Amount: TypeAlias = Annotated[float, Field(ge=0, le=1e9)]  # keeps sums and products of them finite


class Param(Message):
    """One parameter of a task."""

    name: Word
    value: str = Field("", max_length=1024)


Params: TypeAlias = Annotated[tuple[Param, ...], Field(max_length=32)]


class CallForProposals(Message):
    """A task that somebody may do."""

    task: Word
    skill: Word
    requires: Words = ()
    epoch: int = Field(0, ge=0)
    device: str = Field("", max_length=512)
    resource: str = Field("", max_length=512)
    value: str = Field("", max_length=1024)
    params: Params = ()
    left_s: float = Field(0.0, ge=0, le=86_400)
    accepted_unix_ns: int = Field(0, ge=0, le=2**63 - 1)


class Bid(Message):
    """What doing it would cost the sender."""

    cost: Amount
    epoch: int = Field(0, ge=0)


class Award(Message):
    """Who won: whoever this is sent to; from the winner: it has taken it."""

    task: Word
    epoch: int = Field(ge=0)
    price: Amount = 0.0


class Report(Message):
    """How a task ended."""

    task: Word
    epoch: int = Field(ge=0)
    status: Literal["done", "failed"]


class Bundle(Message):
    """A set of tasks for one agent."""

    tasks: Words = ()


class Inquiry(Message):
    """Asks what each of some sets of tasks would cost."""

    round: int = Field(0, ge=0)
    bundles: Annotated[tuple[Bundle, ...], Field(max_length=MOST_ITEMS)] = ()


class BundleCost(Message):
    """What one set of tasks would cost."""

    tasks: Words = ()
    cost: Amount


class Quote(Message):
    """The answer to an `Inquiry`; sets that cannot be done are left out."""

    round: int = Field(0, ge=0)
    costs: Annotated[tuple[BundleCost, ...], Field(max_length=MOST_ITEMS)] = ()


class Offer(Message):
    """An outcome that the sender would have."""

    round: int = Field(0, ge=0)
    outcome: Word


class Ballot(Message):
    """What a voter thinks of the options; what its ranking leaves out ranks last, all equal."""

    ranking: Words = ()
    approved: Words = ()
    vetoed: Words = ()


class Claim(Message):
    """The sender's own bid for one task."""

    task: Word
    score: Amount


class PeerVote(Message):
    """Who the sender thinks has won a task."""

    task: Word
    peer: Word


class Claims(Message):
    """All that one peer bids for, as of now."""

    number: int = Field(ge=0)
    phase: Phase
    claims: Annotated[tuple[Claim, ...], Field(max_length=MOST_ITEMS)] = ()
    votes: Annotated[tuple[PeerVote, ...], Field(max_length=MOST_ITEMS)] = ()


class Dispute(Message):
    """A conflict over one device resource: to be settled, or what each option is worth is asked."""

    device: str = Field(min_length=1, max_length=512)
    resource: str = Field(min_length=1, max_length=512)
    wanted: Word
    options: Annotated[Words, Field(min_length=1)]
    others: Annotated[tuple[Word, ...], Field(max_length=MOST_PARTIES)] = ()
    because: str = Field("", max_length=MAX_REASON_CHARS)
    sent_unix_ns: int = Field(0, ge=0)


class DisputeTold(Message):
    """Under which name a conflict is settled, or why it is not."""

    conversation: str = Field("", max_length=64)
    problem: str = Field("", max_length=MAX_REASON_CHARS)
    ends_s: float = Field(0.0, ge=0, le=86_400)


class Worth(Message):
    """What one option is worth to the sender."""

    option: Word
    utility: Annotated[float, Field(ge=0, le=1)]


class Appraisal(Message):
    """What the options of a conflict are worth to the sender, and how it stands to the resource."""

    way: Word
    worths: Annotated[tuple[Worth, ...], Field(max_length=MOST_ITEMS)] = ()
    disagreement: float = Field(0.0, ge=0, le=1)
    holds: bool = False
    quiet_s: float = Field(0.0, ge=0, le=1e9)
    present: str = Field("", max_length=64)


class Settlement(Message):
    """How a conflict ended: who gives this value, and how long others leave the resource alone."""

    device: str = Field(min_length=1, max_length=512)
    resource: str = Field(min_length=1, max_length=512)
    value: str = Field("", max_length=64)
    winner: str = Field("", max_length=64)
    rung: str = Field("", max_length=64)
    stands_s: float = Field(0.0, ge=0, le=86_400)


class Act(Message):
    """One communicative act of a conversation.

    `performative` is any word: one that is not known is answered, not dropped.
    """

    version: int = Field(0, ge=0)
    needs: int = Field(0, ge=0)
    performative: Word
    conversation: Word
    reply_by_s: float = Field(0.0, ge=0, le=86_400)
    reason: str = Field("", max_length=MAX_REASON_CHARS)
    call: CallForProposals | None = None
    bid: Bid | None = None
    award: Award | None = None
    report: Report | None = None
    inquiry: Inquiry | None = None
    quote: Quote | None = None
    offer: Offer | None = None
    ballot: Ballot | None = None
    claims: Claims | None = None
    dispute: Dispute | None = None
    appraisal: Appraisal | None = None
    settlement: Settlement | None = None


class Announcement(Message):
    """An agent says that it is there: which run of it, and which tasks it bids for.

    `hears_peers`: also for those that other agents lead; who does not say so is not asked by them.
    """

    incarnation: Word
    skills: Words = ()
    busy: int = Field(0, ge=0)
    hears_peers: bool = False


class LedgerAsk(Message):
    """An agent asks the ledger of tasks: `read`, `take` or `close`."""

    verb: Word
    task: Word
    epoch: int = Field(0, ge=0)
    incarnation: str = Field("", max_length=64)
    status: str = Field("", max_length=64)
    reason: str = Field("", max_length=MAX_REASON_CHARS)


class LedgerTold(Message):
    """Where a task stands, and why it was not changed; empty when it was."""

    task: Word
    epoch: int = Field(0, ge=0)
    status: str = Field("", max_length=64)
    winner: str = Field("", max_length=64)
    incarnation: str = Field("", max_length=64)
    problem: str = Field("", max_length=MAX_REASON_CHARS)
