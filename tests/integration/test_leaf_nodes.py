"""Gateways linked by real leaf nodes: what crosses, what does not, who speaks, and what a cut link does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.crossing import SENT, Crossed, Crossing
from edgeagents.adapters.leaf_nodes import account_of
from edgeagents.adapters.mirrors import keep_copies, offer_copies
from edgeagents.errors import ForeignDomainError, NotFoundError, TooLargeError, UnavailableError
from edgeagents.model.cooperation import Act
from tests.linked import LinkedBroker, Pair, as_peer, linked_pair, links, running, until_linked
from tests.nats import free_port, until

EVENT = "edgex.events.device.svc.p.lamp.on"
EVERYTHING = [
    EVENT, "edgex.core.command.request.lamp.on.set", "$MQTT.sub.x", "$JS.API.STREAM.NAMES", "$KV.leases.x", "$SRV.PING",
    "_INBOX.owner.x", "north.commands.lamp.air", "south.commands.lamp.air", "north.leases.air", "north.sessions.air",
    "south.sagas.x", "north.outcomes.air.lamp", "south.audit.air.1", "north.acts.cool.air", "north.acts.cool.north.air",
    "north.acts.cool.east.air", "north.roster.air", "west.roster.air", "anything",
]  # fmt: skip
ACT = Act(version=1, performative="inform", conversation="c1")


PROBE = b"probe"


class Heard:
    """What a subscription has heard; probes left out."""

    def __init__(self) -> None:
        self.messages: list[BusMessage] = []
        self.probes = 0

    async def __call__(self, message: BusMessage) -> None:
        if message.data.startswith(PROBE):
            self.probes += message.data == PROBE + message.subject.encode()
        else:
            self.messages.append(message)

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self.messages]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with linked_pair(tmp_path) as found:
        yield found


@pytest.fixture
async def north(pair: Pair) -> AsyncIterator[Bus]:
    bus = await pair.north.connect()
    await until_linked(bus, "south")
    yield bus
    await bus.close()


@pytest.fixture
async def south(pair: Pair) -> AsyncIterator[Bus]:
    bus = await pair.south.connect()
    await until_linked(bus, "north")
    yield bus
    await bus.close()


class Told:
    """The acts that came over a link; probes left out."""

    def __init__(self) -> None:
        self.acts: list[Crossed] = []
        self.probes: list[str] = []

    async def __call__(self, found: Crossed) -> None:
        if found.act.conversation.startswith("probe"):
            self.probes.append(found.act.conversation)
        else:
            self.acts.append(found)

    @property
    def conversations(self) -> list[str]:
        return [found.act.conversation for found in self.acts]


async def heard_by(bus: Bus, subject: str = ">", *, of: Bus, probe: str) -> Heard:
    """Hear a subject, and return once what is published on `probe` over there arrives: interest has to cross first."""
    heard = Heard()
    await bus.subscribe(subject, heard)
    await bus.flush(30)
    async with asyncio.timeout(60):
        while not heard.probes:
            await of.publish(probe, PROBE + probe.encode())
            await of.flush(30)
            await asyncio.sleep(0.05)
    return heard


async def reached(sender: Crossing, told: Told, to: str) -> None:
    """Return once an act arrives and no other is under way: interest has to cross first."""
    for number in range(200):
        name = f"probe-{number}"
        await sender.tell("north", to, "air", ACT.model_copy(update={"conversation": name}))
        with contextlib.suppress(TimeoutError):
            await until(lambda name=name: name in told.probes, 0.3)  # type: ignore[misc]
            return
    raise AssertionError("no act arrives")


def crossing(bus: Bus, broker: LinkedBroker, *, oldest: float = 5.0) -> Crossing:
    return Crossing(bus, broker.gateways.model_copy(update={"oldest": oldest}))


async def test_only_what_the_owner_lets_cross_does_in_either_direction(north: Bus, south: Bus) -> None:
    in_north = await heard_by(north, of=south, probe="south.roster.air")
    in_south = await heard_by(south, of=north, probe="south.tasks.air.north.cool")
    for subject in EVERYTHING:
        await south.publish(subject, b"from south")
        await north.publish(subject, b"from north")
    await south.publish("north.acts.cool.south.air", b"from south")
    await south.publish("south.roster.air", b"from south")
    await north.publish("south.tasks.air.north.cool", b"from north")
    for bus in (north, south):
        await bus.flush(30)
    crossed = ["north.acts.cool.south.air", "south.roster.air"]
    await until(lambda: crossed == [m.subject for m in in_north.messages if m.data == b"from south"])
    await until(
        lambda: [m.subject for m in in_south.messages if m.data == b"from north"][-1:] == ["south.tasks.air.north.cool"]
    )
    from_north = [m.subject for m in in_south.messages if m.data == b"from north"]
    assert from_north == ["north.roster.air", "south.tasks.air.north.cool"]


async def test_devices_of_one_name_and_their_streams_stay_apart(north: Bus, south: Bus) -> None:
    for bus, name in ((north, "north"), (south, "south")):
        for stream, captured in subjects.stream_subjects(name).items():
            await bus.ensure_stream(stream, captured)
    for number in range(3):
        await south.store(EVENT, b"south %d" % number)
    assert await north.store(EVENT, b"north") == 1
    assert await south.store(subjects.command("south", "lamp", "air"), b"x") == 1
    await asyncio.sleep(0.3)
    assert [await bus.last_sequence("edgex-events") for bus in (north, south)] == [1, 3]
    last = await north.last("edgex-events", EVENT)
    assert last is not None
    assert last.data == b"north"
    assert await north.last_sequence("commands") == 0


async def test_an_agent_consumes_and_commands_on_a_linked_broker_as_on_any(pair: Pair, south: Bus) -> None:
    for stream, captured in subjects.stream_subjects("south").items():
        await south.ensure_stream(stream, captured)
    agent = await pair.south.connect("agent-air")
    await south.store(EVENT, b"event")
    async with asyncio.timeout(60):
        async for message in agent.consume("edgex-events", subjects.agent_durable("air"), [EVENT]):
            assert (message.data, message.stream, message.sequence) == (b"event", "edgex-events", 1)
            await message.ack()
            break
    await agent.flush(30)
    async with asyncio.timeout(60):
        while not await south.is_caught_up("edgex-events", subjects.agent_durable("air")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await agent.store(subjects.command("south", "lamp", "air"), b"x") == 1
    await agent.close()


async def test_a_command_for_a_device_of_the_other_gateway_has_no_way(north: Bus, south: Bus) -> None:
    await north.ensure_stream("commands", ["north.commands.*.*"])
    with pytest.raises(UnavailableError, match="no stream captures it"):
        await south.store(subjects.command("north", "lamp", "air"), b"x")
    with pytest.raises(UnavailableError, match="nobody answers"):
        await south.request(subjects.lease("north", "air"), b"", timeout_s=2)
    for asked in ("$JS.API.STREAM.INFO.commands", "$JS.north.API.STREAM.INFO.commands", "$JS.north.API.INFO"):
        with contextlib.suppress(UnavailableError):
            assert b"north" not in (await south.request(asked, b"", timeout_s=1)).data
    assert await north.last_sequence("commands") == 0


async def test_acknowledgements_are_of_the_gateways_own_domain(north: Bus, south: Bus) -> None:
    await south.ensure_stream("audit", ["south.audit.*.*"])
    assert await south.store("south.audit.air.1", b"x") == 1
    assert south.server_info["domain"] == "south"
    await north.ensure_stream("stolen", ["north.audit.*.*"])
    north.client._server_info["domain"] = "elsewhere"  # what it would be were the stream another gateway's
    with pytest.raises(
        ForeignDomainError, match="acknowledged by the JetStream domain 'north', and ours is 'elsewhere'"
    ):
        await north.store("north.audit.air.1", b"x")


async def test_an_act_crosses_from_agent_to_agent_with_its_sender_proven(pair: Pair, north: Bus, south: Bus) -> None:
    told = Told()
    agent = await pair.south.connect("agent-air")
    cool = await pair.north.connect("agent-air")
    await crossing(cool, pair.north, oldest=60.0).hear("air", told)
    await reached(crossing(agent, pair.south), told, "air")
    await crossing(agent, pair.south).tell("north", "air", "air", ACT.model_copy(update={"reply_by_s": 90.0}))
    await until(lambda: len(told.acts) == 1)
    (found,) = told.acts
    assert (found.gateway, found.sender, found.to) == ("south", "air", "air")
    assert found.act.reply_by_s == pytest.approx(90.0 - found.age_s)
    with pytest.raises(NotFoundError, match="lets them cross to north"):
        await crossing(agent, pair.south).tell("east", "air", "air", ACT)
    for bus in (agent, cool):
        await bus.close()


async def test_an_agent_speaks_in_no_other_name_across_a_link(pair: Pair, north: Bus, south: Bus) -> None:
    heard = await heard_by(north, "north.acts.>", of=south, probe="north.acts.cool.south.air")
    agent = await pair.south.connect("agent-air")
    for subject in ("north.acts.cool.south.heat", "north.acts.cool.north.air", "north.acts.cool.south.air"):
        await agent.publish(subject, b"x")
    await agent.flush(30)
    await until(lambda: bool(heard.messages))
    assert heard.subjects == ["north.acts.cool.south.air"]
    await agent.close()


async def test_a_peer_that_keeps_to_no_rule_hears_and_says_no_more_than_it_may(
    pair: Pair, north: Bus, tmp_path: Path
) -> None:
    pair.south.stop()
    await until_linked(north)
    password = (pair.north.folder / "peer-south.password").read_text().strip()
    assert pair.north.gateways.listen is not None
    port = free_port()
    config = as_peer(
        "south", password, pair.north.gateways.listen.port, tmp_path / "rogue", listen=f"127.0.0.1:{port}",
        max_payload=32 << 20,
    )  # fmt: skip
    with running(config):
        await until_linked(north, "south")
        rogue = await Bus.connect(
            north.settings.model_copy(update={"nats_url": f"nats://127.0.0.1:{port}", "nats_user": ""}), "rogue"
        )
        in_rogue = await heard_by(rogue, of=north, probe="south.acts.air.north.cool")
        in_north = await heard_by(north, of=rogue, probe="north.acts.cool.south.air")
        await north.ensure_stream("audit", ["north.audit.*.*"])
        for subject in EVERYTHING:
            await rogue.publish(subject, b"from rogue")
            await north.publish(subject, b"from north")
        await rogue.publish("north.acts.cool.south.air", b"from rogue")
        await north.publish("south.acts.air.north.cool", b"from north")
        for bus in (rogue, north):
            await bus.flush(30)
        await until(lambda: "north.acts.cool.south.air" in in_north.subjects)
        await until(lambda: "south.acts.air.north.cool" in in_rogue.subjects)
        assert [m.subject for m in in_north.messages if m.data == b"from rogue"] == ["north.acts.cool.south.air"]
        assert [m.subject for m in in_rogue.messages if m.data == b"from north"] == [
            "north.roster.air",
            "south.acts.air.north.cool",
        ]
        # Ten megabytes, which its own server lets pass: ours closes the link, says why, and takes it up again.
        await rogue.publish("north.acts.cool.south.air", b"x" * 10_000_000)
        await until(lambda: "maximum payload" in pair.north.log.lower(), 60)
        assert max(len(message.data) for message in in_north.messages) < 1_000_000
        await until_linked(north, "south")
        assert north.is_connected
        await rogue.close()


async def test_a_wrong_password_makes_no_link_and_is_told(tmp_path: Path) -> None:
    async with linked_pair(tmp_path, password="wrong") as pair:
        north = await pair.north.connect()
        await until(lambda: "Authorization Violation" in pair.south.log, 60)
        await until(lambda: "authentication error" in pair.north.log)
        assert await links(north) == {}
        await north.close()


async def test_passwords_of_peers_and_of_agents_open_no_other_door(pair: Pair, north: Bus, tmp_path: Path) -> None:
    leaf = pair.north.folder / "peer-south.password"
    settings = north.settings.model_copy(update={"nats_user": "gateway-south", "nats_password_file": leaf})
    with pytest.raises(UnavailableError, match="refused user or password"):
        await Bus.connect(settings, "peer as client")
    assert pair.north.gateways.listen is not None
    config = as_peer(
        "south", "x", pair.north.gateways.listen.port, tmp_path / "agent", listen=f"127.0.0.1:{free_port()}"
    )
    owner = pair.north.passwords["owner"].read_text().strip()
    config.write_text(config.read_text().replace("gateway-south:x", f"owner:{owner}"))
    with running(config):
        await until(lambda: pair.north.log.count("authentication error") >= 2, 60)
        assert set(await links(north)) == {account_of("south")}


async def test_a_cut_link_leaves_both_at_work_and_heals_with_nothing_old_taken_for_new(
    pair: Pair, north: Bus, south: Bus
) -> None:
    told = Told()
    for bus, name in ((north, "north"), (south, "south")):
        await bus.ensure_stream("commands", [f"{name}.commands.*.*"])
    receiver, sender = crossing(north, pair.north), crossing(south, pair.south)
    await receiver.hear("cool", told)
    await reached(sender, told, "cool")
    pair.cable.cut()
    for number in range(20):
        await sender.tell("north", "cool", "air", ACT.model_copy(update={"conversation": f"old-{number}"}))
    told_s, receiver_oldest_s = time.monotonic(), pair.north.gateways.oldest
    for _ in range(3):  # both work on with their own devices
        await north.store("north.commands.lamp.air", b"x")
        await south.store("south.commands.lamp.air", b"x")
        await asyncio.sleep(1.2)
    await until_linked(north)  # the link has ended: it was silent for too long
    await asyncio.sleep(max(0.0, told_s + receiver_oldest_s - time.monotonic()))  # what was said is old now
    assert await links(north) == {}
    pair.cable.mend()
    healed_s = time.monotonic()
    async with asyncio.timeout(60):
        while "new" not in told.conversations:
            await sender.tell("north", "cool", "air", ACT.model_copy(update={"conversation": "new"}))
            await asyncio.sleep(0.1)
    took_s = time.monotonic() - healed_s
    print(f"healed in {took_s:.2f} s; refused {dict(receiver.refused)}")
    assert took_s < 20, "by itself, and soon"
    assert set(told.conversations) == {"new"}
    assert [await bus.last_sequence("commands") for bus in (north, south)] == [3, 3]


async def test_a_burst_that_a_slow_link_held_back_is_refused(pair: Pair, north: Bus, south: Bus) -> None:
    told = Told()
    receiver, sender = crossing(north, pair.north, oldest=1.0), crossing(south, pair.south)
    await receiver.hear("cool", told)
    for _ in range(10):  # a machine that stands still meanwhile loses the link, and with it what it held back
        await until_linked(north, "south")
        await reached(sender, told, "cool")
        before = receiver.refused["south", "stale"]
        pair.cable.cut()
        for _ in range(20):
            await sender.tell("north", "cool", "air", ACT.model_copy(update={"conversation": "burst"}))
        await south.flush(30)
        await asyncio.sleep(1.2)  # shorter than what ends a link
        pair.cable.mend()
        with contextlib.suppress(TimeoutError):
            await until(lambda before=before: receiver.refused["south", "stale"] == before + 20)  # type: ignore[misc]
            break
    assert receiver.refused["south", "stale"] == before + 20
    async with asyncio.timeout(60):
        while not told.acts:  # what is said now is heard
            await sender.tell("north", "cool", "air", ACT.model_copy(update={"conversation": "new"}))
            await asyncio.sleep(0.1)
    assert set(told.conversations) == {"new"}


async def test_what_is_old_undated_ahead_or_malformed_is_refused_and_counted(
    pair: Pair, north: Bus, south: Bus
) -> None:
    told = Told()
    receiver = crossing(north, pair.north, oldest=30.0)
    await receiver.hear("cool", told)
    await reached(crossing(south, pair.south), told, "cool")
    now_ns, subject = time.time_ns(), subjects.between("north", "acts", "cool", "south", "air")
    data, kind = wire.encode(ACT), wire.AS_PROTOBUF
    short = wire.encode(ACT.model_copy(update={"reply_by_s": 0.5}))
    for body, headers in (
        (data, kind | {SENT: str(now_ns - 60 * 10**9)}),
        (short, kind | {SENT: str(now_ns - 10**9)}),
        (data, kind | {SENT: str(now_ns + 60 * 10**9)}),
        (data, kind),
        (b"\xff\xff", kind | {SENT: str(now_ns)}),
        (b"x" * 300_000, kind | {SENT: str(now_ns)}),
        (data, kind | {SENT: str(now_ns)}),
    ):
        await south.publish(subject, body, headers)
    await until(lambda: len(told.acts) == 1)
    assert receiver.refused == {
        ("south", "stale"): 2, ("south", "ahead"): 1, ("south", "undated"): 1, ("south", "not-decodable"): 1,
        ("south", "too-large"): 1,
    }  # fmt: skip
    with pytest.raises(TooLargeError):
        await south.publish(subject, b"x" * 10_000_000)


async def test_a_hubs_copy_of_the_audit_catches_up_after_a_cut(tmp_path: Path) -> None:
    async with linked_pair(tmp_path) as pair:
        # The same two, with a copy: the owner of south permits it, and the owner of north wants it.
        for broker in (pair.north, pair.south):
            broker.stop()
        changed = {
            pair.north: pair.north.gateways.model_copy(
                update={"peers": {"south": pair.north.gateways.peers["south"].model_copy(update={"keeps": ("audit",)})}}
            ),
            pair.south: pair.south.gateways.model_copy(
                update={
                    "peers": {"north": pair.south.gateways.peers["north"].model_copy(update={"mirrors": ("audit",)})}
                }
            ),
        }
        for broker, gateways in changed.items():
            broker.reconfigure(gateways)
            broker.start()
        north, south = await pair.north.connect(), await pair.south.connect()
        await until_linked(south, "north")
        await south.ensure_stream("audit", ["south.audit.*.*"])
        for number in range(5):
            await south.store("south.audit.air.1", b"before %d" % number)
        assert await offer_copies(south, pair.south.gateways) == ["audit/mirror-south-north"]
        assert await keep_copies(north, pair.north.gateways) == ["audit-south"]
        await copied(north, 5)
        pair.cable.cut()
        for number in range(50):
            await south.store("south.audit.air.1", b"during %d" % number)
        await asyncio.sleep(4)
        assert await north.last_sequence("audit-south") == 5
        pair.cable.mend()
        began_s = time.monotonic()
        await copied(north, 55)
        print(f"the copy had caught up {time.monotonic() - began_s:.1f} s after the link was mended")
        last = await north.last("audit-south", "south.audit.air.1")
        assert last is not None
        assert (last.data, last.sequence) == (b"during 49", 55)
        # Nothing else of south's JetStream answers, and of this consumer only where to go on.
        for asked in ("CONSUMER.CREATE.audit.x", "CONSUMER.DELETE.audit.mirror-south-north", "STREAM.INFO.audit"):
            with pytest.raises(UnavailableError):
                await north.request(f"mirrors.south.API.{asked}", b"{}", timeout_s=1)
        for bus in (north, south):
            await bus.close()


async def copied(bus: Bus, messages: int) -> None:
    """Wait until a copy holds so many messages."""
    async with asyncio.timeout(80):
        while True:
            try:
                if await bus.last_sequence("audit-south") >= messages:
                    return
            except NotFoundError:
                pass
            await asyncio.sleep(0.05)
