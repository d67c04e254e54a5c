"""NATS users of `edgeagents/permissions.py` on a real server: what an agent's user can do, and what it cannot."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.adapters.micro import Micro, ask, instances
from edgeagents.audit import Audit, verify
from edgeagents.embedded.nats import find_nats_server, write_config
from edgeagents.errors import ConflictError, MalformedMessageError, NotFoundError, UnavailableError
from edgeagents.model.message import AuditRecord, LeaseRecord, LeaseReply
from edgeagents.permissions import (
    INFERENCE_USER,
    Permissions,
    agent_user,
    for_agent,
    for_edgex,
    for_everything,
    for_inference,
    inbox,
)
from edgeagents.settings import BusSettings
from tests.contract.waiting import until
from tests.nats import free_port

STREAMS = subjects.stream_subjects("gw")
EVENT = "edgex.events.device.svc.p.dev.r"


class Users:
    """A server with the users of one gateway."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.config, self.passwords = write_config(folder, self.port, self.rights(), sync_always=False)
        self.errors: list[str] = []
        self.told = asyncio.Event()
        with (folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen([find_nats_server(), "-c", str(self.config)], stdout=log, stderr=log)

    def rights(self) -> dict[str, Permissions]:
        """Return what each user may do."""
        return {
            "owner": for_everything(),
            "edgex": for_edgex("gw"),
            INFERENCE_USER: for_inference("gw"),
            **{agent_user(name): for_agent("gw", name) for name in ("air", "heat")},
        }

    async def connect(self, user: str) -> Bus:
        """Return a connection as a user, waiting for the server; refusals it hears of go to `errors`."""
        settings = BusSettings(
            gateway="gw",
            nats_url=f"nats://127.0.0.1:{self.port}",
            nats_user=user,
            nats_password_file=self.passwords[user],
        )
        give_up_s = time.monotonic() + 15
        while True:
            try:
                bus = await Bus.connect(settings, user, inbox=inbox(user))
                break
            except UnavailableError:
                if time.monotonic() > give_up_s:
                    raise
                await asyncio.sleep(0.02)
        heard = bus.client._error_cb

        async def on_error(error: Exception) -> None:
            self.errors.append(str(error))
            self.told.set()
            await heard(error)

        bus.client._error_cb = on_error
        return bus


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """One server for all tests here."""
    found = Users(tmp_path_factory.mktemp("nats-users"))
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture
async def owner(users: Users) -> AsyncIterator[Bus]:
    """The owner's connection, with the gateway's streams in place and empty."""
    bus = await users.connect("owner")
    for name, captured in STREAMS.items():
        await bus.ensure_stream(name, captured)
        await bus.js.purge_stream(name)
    yield bus
    await bus.close()


@pytest.fixture
async def air(users: Users, owner: Bus) -> AsyncIterator[Bus]:
    """The connection of agent `air`."""
    bus = await users.connect("agent-air")
    users.errors.clear()
    yield bus
    await bus.close()


async def take(bus: Bus, stream: str, durable: str, patterns: list[str], count: int) -> list[bytes]:
    """Return what a durable consumer delivers, acknowledged."""
    found: list[bytes] = []
    async with asyncio.timeout(10):
        async for message in bus.consume(stream, durable, patterns):
            found.append(message.data)
            await message.ack()
            if len(found) == count:
                return found
    return found


class TestMay:
    """What the agent service does."""

    async def test_ask_for_a_session_and_a_lease(self, owner: Bus, air: Bus) -> None:
        async def answer(message: BusMessage) -> None:
            data = wire.encode(LeaseReply(granted=True))
            await owner.respond(message, data, wire.AS_PROTOBUF)

        for subject in (subjects.session("gw", "air"), subjects.lease("gw", "air")):
            await owner.subscribe(subject, answer)
            await owner.flush()
            found = await air.request(subject, b"", timeout_s=5)
            assert wire.decode(LeaseReply, found.data).granted

    async def test_store_commands_behind_the_last_one_and_look_that_one_up(self, air: Bus) -> None:
        subject = subjects.command("gw", "heat pump", "air")
        first = await air.store(subject, b"1", expected_last=0)
        with pytest.raises(ConflictError):
            await air.store(subject, b"2", expected_last=0)
        await air.store(subject, b"2", expected_last=first)
        for pattern in (subject, subjects.own_commands("gw", "air")):
            read = air.read(subjects.COMMANDS_STREAM, [pattern], name="agent-air_last", last_per_subject=True)
            assert [message.data async for message in read] == [b"2"]

    async def test_follow_events_outcomes_and_triggers(self, owner: Bus, air: Bus) -> None:
        durable = subjects.agent_durable("air")
        await owner.store(EVENT, b"event")
        await owner.store(subjects.outcome("gw", "air", "dev"), b"outcome")
        await owner.store(subjects.outcome("gw", "heat", "dev"), b"of another")
        await air.store(subjects.trigger("gw", "air"), b"trigger")
        events = ["edgex.events.device.*.p.>", "edgex.rules.agents"]
        assert await take(air, subjects.EVENTS_STREAM, durable, events, 1) == [b"event"]
        mine = [subjects.outcomes("gw", "air")]
        assert await take(air, subjects.COMMANDS_STREAM, durable, mine, 1) == [b"outcome"]
        assert await take(air, subjects.TRIGGERS_STREAM, durable, [subjects.trigger("gw", "air")], 1) == [b"trigger"]
        read = air.read(subjects.EVENTS_STREAM, events, name=f"{durable}_replay", start_s=time.time() - 60)
        assert [message.data async for message in read] == [b"event"]
        assert await air.acknowledged(subjects.EVENTS_STREAM, durable) >= 1

    async def test_write_its_audit_chain_and_read_its_predecessor(self, owner: Bus, air: Bus) -> None:
        for incarnation in ("i1", "i2"):
            audit = Audit(air, "air", incarnation)
            task = asyncio.create_task(audit.run())
            audit.append("started")
            audit.append("decision", inputs={"t": 20.5})
            await audit.drain(10)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        read = owner.read(subjects.AUDIT_STREAM, [], name="check")
        records = [wire.decode(AuditRecord, message.data) async for message in read]
        assert [(record.incarnation, record.number) for record in records] == [
            ("i1", 0), ("i1", 1), ("i2", 0), ("i2", 1),
        ]  # fmt: skip
        assert verify(records) == []

    async def test_set_aside_what_it_cannot_read_and_hear_edgexs_notices(self, owner: Bus, air: Bus) -> None:
        assert await air.store(subjects.dead_letter("gw", "app-agent-air"), b"?") > 0
        heard = asyncio.Event()

        async def on_notice(message: BusMessage) -> None:
            heard.set()

        await air.subscribe("edgex.system-events.core-metadata.>", on_notice)
        await air.subscribe("edgex.configs.edgex.v4.app-agent-air.>", on_notice)
        await air.subscribe("edgex.configs.edgex.v4.core-common-config-bootstrapper.>", on_notice)
        await air.flush()
        await owner.publish("edgex.system-events.core-metadata.device.add.x", b"{}")
        async with asyncio.timeout(5):
            await heard.wait()


async def refused(users: Users, air: Bus, attempt: Callable[[], Awaitable[Any]]) -> bool:
    """Say whether the server denies what an attempt does."""
    users.errors.clear()
    users.told = asyncio.Event()
    trying, told = asyncio.ensure_future(attempt()), asyncio.ensure_future(users.told.wait())
    await asyncio.wait({trying, told}, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    trying.cancel()
    with contextlib.suppress(UnavailableError, NotFoundError, nats.errors.Error, asyncio.CancelledError):
        await trying
    await air.flush()
    told.cancel()
    return any("permissions violation" in text.lower() for text in users.errors)


class TestMayNot:
    """What would let an agent be somebody else, or do more than its part."""

    @pytest.mark.parametrize(
        "subject",
        [
            subjects.command("gw", "dev", "heat"),
            subjects.command("gw", "dev", subjects.GUARD),
            subjects.session("gw", "heat"),
            subjects.lease("gw", "heat"),
            subjects.audit("gw", "heat", "i1"),
            subjects.audit("gw", "guard", "i1"),
            subjects.outcome("gw", "air", "dev"),
            subjects.trigger("gw", "heat"),
            subjects.dead_letter("gw", "app-guard"),
            "edgex.core.command.request.dev.Power.set",
            "edgex.core.commandquery.request.dev",
            "edgex.device.command.request.svc.dev.Power.set",
            "edgex.configs.edgex.v4.app-guard.Writable.LogLevel",
            "edgex.system-events.core-metadata.device.delete.x",
            EVENT,
            "_INBOX.agent-heat.abc",
            subjects.conflict("gw", "heat"),  # a conflict in another's name
            subjects.act("gw", "heat", subjects.COORDINATOR),  # a settlement for another, forged
            subjects.act("gw", "air", subjects.COORDINATOR),  # and for itself
        ],
    )
    async def test_publish(self, users: Users, owner: Bus, air: Bus, subject: str) -> None:
        seen: list[str] = []

        async def note(message: BusMessage) -> None:
            seen.append(message.subject)

        await owner.subscribe(subject, note)
        await owner.flush()
        assert await refused(users, air, lambda: air.publish(subject, b"x"))
        await owner.flush()
        assert seen == []

    @pytest.mark.parametrize(
        "subject",
        [
            subjects.outcomes("gw", "heat"), subjects.outcomes("gw"), subjects.commands("gw"), "_INBOX.>",
            "_INBOX.micro.>", "_INBOX.agent-heat.>", "_INBOX.owner.>", "gw.>", ">", "edgex.>",
            "edgex.response.core-command.*", "$SYS.>",
            "edgex.configs.edgex.v4.app-guard.>", "$SRV.>", "$SRV.PING.*", "$SRV.PING.app-guard",
            "$SRV.INFO.app-agent-heat", "$SRV.STATS.app-agent-heat.*",
        ],
    )  # fmt: skip
    async def test_subscribe(self, users: Users, air: Bus, subject: str) -> None:
        async def ignore(message: BusMessage) -> None:
            raise AssertionError(message.subject)

        assert await refused(users, air, lambda: air.subscribe(subject, ignore))

    @pytest.mark.parametrize(
        "request_subject",
        [
            "$JS.API.STREAM.DELETE.commands", "$JS.API.STREAM.PURGE.audit", "$JS.API.STREAM.INFO.commands",
            "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.UPDATE.commands",
            "$JS.API.STREAM.CREATE.evil", "$JS.API.STREAM.MSG.GET.commands", "$JS.API.STREAM.MSG.DELETE.audit",
            "$JS.API.DIRECT.GET.commands", "$JS.API.DIRECT.GET.commands.gw.commands.dev.air", "$JS.API.INFO",
            "$JS.API.CONSUMER.NAMES.commands", "$JS.API.CONSUMER.DELETE.commands.guard",
            "$JS.API.CONSUMER.MSG.NEXT.commands.guard", "$JS.API.CONSUMER.MSG.NEXT.edgex-events.agent-heat",
            "$JS.API.CONSUMER.DURABLE.CREATE.commands.agent-air", "$JS.API.CONSUMER.PAUSE.commands.agent-heat",
            "$SYS.REQ.SERVER.PING",
        ],
    )  # fmt: skip
    async def test_ask_jetstream(self, users: Users, air: Bus, request_subject: str) -> None:
        assert await refused(users, air, lambda: air.request(request_subject, b"{}", timeout_s=0.3))

    @pytest.mark.parametrize(
        ("stream", "name", "pattern"),
        [
            (subjects.COMMANDS_STREAM, "agent-air", subjects.outcomes("gw", "heat")),
            (subjects.COMMANDS_STREAM, "agent-air", subjects.commands("gw")),
            (subjects.COMMANDS_STREAM, "agent-air_last", "gw.commands.*.heat"),
            (subjects.AUDIT_STREAM, "audit-air", "gw.audit.heat.*"),
            (subjects.TRIGGERS_STREAM, "agent-air", subjects.trigger("gw", "heat")),
            (subjects.EVENTS_STREAM, "agent-heat", "edgex.events.device.>"),
            (subjects.DEAD_LETTERS_STREAM, "agent-air", "gw.dead-letters.*"),
        ],
    )
    async def test_read_what_is_for_others(
        self, users: Users, owner: Bus, air: Bus, stream: str, name: str, pattern: str
    ) -> None:
        async def attempt() -> None:
            async for message in air.read(stream, [pattern], name=name):
                raise AssertionError(message.subject)

        assert await refused(users, air, attempt)

    @pytest.mark.parametrize("filters", [{"filter_subjects": ["gw.outcomes.heat.*"]}, {"filter_subject": "gw.>"}, {}])
    async def test_name_one_filter_and_ask_for_another(self, owner: Bus, air: Bus, filters: dict[str, Any]) -> None:
        await owner.store(subjects.outcome("gw", "heat", "dev"), b"secret")
        subject = "$JS.API.CONSUMER.CREATE.commands.agent-air.gw.outcomes.air.*"
        config = {"name": "agent-air", "deliver_policy": "all", "ack_policy": "none", **filters}
        body = json.dumps({"stream_name": "commands", "config": config}).encode()
        answer = json.loads((await air.request(subject, body, timeout_s=5)).data)
        assert "error" in answer, answer

    @pytest.mark.parametrize(
        "target", ["edgex.core.command.request.dev.Power.set", "gw.commands.dev.guard", "gw.sessions.heat"]
    )
    async def test_borrow_the_servers_right_to_publish_by_a_reply_subject(
        self, owner: Bus, air: Bus, target: str
    ) -> None:
        """The server answers to any reply subject; what it answers there may not be bytes an agent has chosen."""
        seen: list[tuple[str, bytes]] = []

        async def note(message: BusMessage) -> None:
            seen.append((message.subject, message.data))

        await owner.subscribe(target, note)
        await owner.flush()
        evil, own = b"EVIL", subjects.command("gw", "dev", "air")
        await air.store(own, evil)
        await air.store(subjects.trigger("gw", "air"), evil)
        config = {"name": "agent-air", "durable_name": "agent-air", "ack_policy": "explicit", "deliver_policy": "all"}
        body = json.dumps(
            {"stream_name": "triggers", "config": {**config, "filter_subject": "gw.triggers.air"}}
        ).encode()
        await air.request("$JS.API.CONSUMER.CREATE.triggers.agent-air.gw.triggers.air", body, timeout_s=5)
        for asked, data in (
            (f"$JS.API.DIRECT.GET.commands.{own}", b""),
            ("$JS.API.CONSUMER.MSG.NEXT.triggers.agent-air", b"1"),
            ("$JS.API.CONSUMER.INFO.triggers.agent-air", b""),
            (own, evil),
        ):
            await air.publish(asked, data, reply=target)
        await air.flush()
        await asyncio.sleep(0)
        await owner.request("$JS.API.INFO", b"", timeout_s=5)  # what the server had to send before is sent
        assert (target, evil) not in seen
        assert not [data for subject, data in seen if subject == target and not data.startswith(b"{")]


@pytest.mark.parametrize("target", ["gw.acts.heat.coordinator", "gw.coordinator", "gw.commands.dev.heat"])
async def test_what_a_consumer_delivers_to_anothers_subject_is_not_heard_there(
    owner: Bus, air: Bus, target: str
) -> None:
    """The broker asks nobody whether a consumer may deliver there; what it delivers keeps its own subject."""
    seen, raw, own = list[str](), list[str](), subjects.trigger("gw", "air")

    async def note(message: BusMessage) -> None:
        seen.append(message.subject)

    async def note_raw(message: Msg) -> None:
        raw.append(message.subject)

    await owner.subscribe(target, note)
    await owner.client.subscribe(target, cb=note_raw)
    await owner.flush()
    await air.store(own, b"EVIL")
    config = {
        "name": "agent-air", "deliver_subject": target, "ack_policy": "none", "deliver_policy": "all",
        "filter_subject": own,
    }  # fmt: skip
    body = json.dumps({"stream_name": "triggers", "config": config}).encode()
    await air.request("$JS.API.CONSUMER.DELETE.triggers.agent-air", b"", timeout_s=5)
    answer = json.loads(
        (await air.request("$JS.API.CONSUMER.CREATE.triggers.agent-air.gw.triggers.air", body, timeout_s=5)).data
    )
    assert "error" not in answer, "the broker refuses it now: the note in permissions.py can go"
    await until(lambda: own in raw, "it is delivered")
    await owner.flush()
    assert seen == []
    await owner.publish(target, b"of the owner's")
    await until(lambda: seen, "what is the owner's is heard")
    assert seen == [target]
    await air.request("$JS.API.CONSUMER.DELETE.triggers.agent-air", b"", timeout_s=5)


async def test_the_language_models_user_makes_no_consumer(users: Users, owner: Bus) -> None:
    inference = await users.connect(INFERENCE_USER)
    try:
        users.errors.clear()
        for stream in ("OBJ_prefixes", "triggers"):

            async def attempt(stream: str = stream) -> None:
                await inference.request(f"$JS.API.CONSUMER.CREATE.{stream}", b"{}", timeout_s=0.5)

            assert await refused(users, inference, attempt)
    finally:
        await inference.close()


async def test_what_the_server_says_of_a_request_is_no_start_of_a_guard(owner: Bus, air: Bus) -> None:
    """A status goes to any reply subject too, as an empty message: a guard must not take it for another guard's."""
    config = {"name": "agent-air", "durable_name": "agent-air", "ack_policy": "explicit", "deliver_policy": "new"}
    body = json.dumps({"stream_name": subjects.EVENTS_STREAM, "config": config}).encode()
    await air.request(f"$JS.API.CONSUMER.CREATE.{subjects.EVENTS_STREAM}.agent-air", body, timeout_s=5)
    asked = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.EVENTS_STREAM}.agent-air"
    await air.publish(asked, b'{"batch":1,"no_wait":true}', reply=subjects.guard_starts("gw"))
    await air.flush()

    async def stored() -> object:
        return await owner.last(subjects.COMMANDS_STREAM, subjects.guard_starts("gw"))

    status = await until(stored, "the server's word is stored")
    with pytest.raises(MalformedMessageError):
        wire.decode(LeaseRecord, status.data)


async def test_an_agent_hears_changes_of_the_common_configuration_but_not_its_secrets(owner: Bus, air: Bus) -> None:
    root = "edgex.configs.edgex.v4.core-common-config-bootstrapper"
    heard: list[str] = []

    async def note(message: BusMessage) -> None:
        heard.append(message.subject)

    await air.subscribe(f"{root}.>", note)
    await air.flush()
    for level in ("Writable.InsecureSecrets.DB.SecretData.password", "Writable.InsecureSecrets", "Writable.LogLevel"):
        await owner.publish(f"{root}.all-services.{level}", b"x")
    await owner.flush()
    await until(lambda: heard, "it hears of the log level")
    assert heard == [f"{root}.all-services.Writable.LogLevel"]


async def test_an_agent_answers_where_questions_have_their_answers_sent_and_nowhere_else(
    users: Users, owner: Bus, air: Bus
) -> None:
    await Micro("app-agent-air", "4.0.0", instance="i1").serve(air)
    await air.flush()
    subject = subjects.asked("PING", "app-agent-air")
    [answer] = await until(lambda: ask(owner, "PING", "app-agent-air"), "it answers")
    assert json.loads(answer)["id"] == "i1"
    assert users.errors == []

    async def ask_elsewhere() -> None:
        await owner.publish(subject, b"", reply="_INBOX.owner.x")
        await users.told.wait()

    # A reply subject that somebody put into a question gives no right to publish there.
    assert await refused(users, air, ask_elsewhere)


@pytest.mark.parametrize("subject", ["$SRV.PING", "$SRV.PING.app-agent-heat", "$SRV.PING.app-agent-air"])
async def test_an_agent_asks_nobody_what_it_is_itself_included(users: Users, air: Bus, subject: str) -> None:
    assert await refused(users, air, lambda: air.publish(subject, b"", reply="_INBOX.micro.x"))


async def test_services_are_found_by_name_and_those_that_are_not_there_have_no_instance(owner: Bus, air: Bus) -> None:
    micro = Micro("app-agent-air", "4.0.0", instance="i1")
    await micro.serve(air)
    await air.flush()

    async def found() -> dict[str, list[str]] | None:  # who answers late is asked again
        answers = await instances(owner, ["app-agent-air", "app-agent-heat"])
        return answers if answers["app-agent-air"] else None

    assert await until(found, "the one that is there answers") == {"app-agent-air": ["i1"], "app-agent-heat": []}
    everybody = await until(lambda: ask(owner, "PING"), "it answers all questions")
    assert [json.loads(body)["name"] for body in everybody] == ["app-agent-air"]


async def test_a_wrong_password_is_told_as_such(users: Users, tmp_path: Path, owner: Bus) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("wrong")
    settings = BusSettings(nats_url=f"nats://127.0.0.1:{users.port}", nats_user="agent-air", nats_password_file=wrong)
    with pytest.raises(UnavailableError, match="refused user or password"):
        await Bus.connect(settings, "x")
