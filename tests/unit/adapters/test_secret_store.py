"""The secret store's client against a real OpenBao: token, secrets, own JWT, and everything that goes wrong."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI

from edgeagents.adapters import secret_store
from edgeagents.adapters.secret_settings import SecretStoreSettings, read_token
from edgeagents.adapters.secret_store import SecretStore
from edgeagents.adapters.serving import WebServer, bind
from edgeagents.errors import (
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UpstreamError,
)
from tests.nats import free_port, until
from tests.openbao import OpenBao, openbao_in

KEY = "app-store"


@pytest.fixture(scope="module")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One OpenBao for the whole file: each test leaves it unsealed."""
    with openbao_in(tmp_path_factory.mktemp("openbao")) as server:
        yield server


@pytest.fixture
def settings(openbao: OpenBao) -> SecretStoreSettings:
    """A service that secretstore-setup knows."""
    return openbao.add_service(KEY)


@pytest.fixture
async def store(settings: SecretStoreSettings) -> AsyncIterator[SecretStore]:
    """A connected store."""
    connected = SecretStore(settings)
    await connected.connect()
    yield connected
    await connected.close()


@asynccontextmanager
async def renewing(store: SecretStore, due_in_s: float | None) -> AsyncIterator[None]:
    """Have the store keep its token alive inside the block."""
    task = asyncio.create_task(store.run(due_in_s))
    yield
    task.cancel()
    await asyncio.wait({task})


@asynccontextmanager
async def sealed(openbao: OpenBao) -> AsyncIterator[None]:
    openbao.seal()
    try:
        yield
    finally:
        openbao.unseal()


# --- secrets ------------------------------------------------------------------------------------------


async def test_a_stored_secret_is_read_back_and_lies_where_edgex_looks_for_it(
    openbao: OpenBao, store: SecretStore
) -> None:
    await store.store("mail", {"user": "u", "password": "pä55"})
    assert await store.secret("mail") == {"user": "u", "password": "pä55"}
    assert openbao.api("GET", f"secret/edgex/{KEY}/mail")["data"] == {"user": "u", "password": "pä55"}


async def test_a_secret_stored_again_is_read_as_it_is_now(store: SecretStore) -> None:
    await store.store("mail", {"password": "old"})
    assert await store.secret("mail") == {"password": "old"}
    await store.store("mail", {"password": "new"})
    assert await store.secret("mail") == {"password": "new"}


async def test_a_caller_cannot_change_the_kept_secret(store: SecretStore) -> None:
    await store.store("mail", {"password": "p"})
    (await store.secret("mail"))["password"] = "changed"
    assert await store.secret("mail") == {"password": "p"}


async def test_an_unknown_secret_is_not_found(store: SecretStore) -> None:
    with pytest.raises(NotFoundError, match="'never-stored'"):
        await store.secret("never-stored")


@pytest.mark.parametrize("name", ["", " ", "a//b", "../app-other/mail", "a/..", ".", "a\nb", "/a"])
async def test_a_name_that_leads_elsewhere_is_refused(store: SecretStore, name: str) -> None:
    with pytest.raises(InvalidInputError):
        await store.store(name, {"k": "v"})
    with pytest.raises(InvalidInputError):
        await store.secret(name)


async def test_odd_names_are_kept_apart(store: SecretStore) -> None:
    names = ["a b", "a%20b", "a/b", "ä?x=1#y"]
    for name in names:
        await store.store(name, {"name": name})
    assert [await store.secret(name) for name in names] == [{"name": name} for name in names]


@pytest.mark.parametrize("data", [{}, {"": "v"}, {" ": "v"}])
async def test_a_secret_without_keys_is_refused(store: SecretStore, data: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        await store.store("mail", data)


async def test_values_that_are_no_texts_are_told_without_being_shown(openbao: OpenBao, store: SecretStore) -> None:
    openbao.api("POST", f"secret/edgex/{KEY}/number", {"pin": 4711})
    with pytest.raises(UpstreamError) as raised:
        await store.secret("number")
    assert "4711" not in str(raised.value)


# --- the token ----------------------------------------------------------------------------------------


async def test_a_token_is_renewed_before_it_ends(openbao: OpenBao) -> None:
    store = SecretStore(openbao.add_service("app-brief", token_ttl="3s"))
    due_in_s = await store.connect()
    assert due_in_s is not None
    assert due_in_s <= 2
    async with renewing(store, due_in_s):
        ends: set[str] = set()

        def is_renewed_twice() -> bool:
            found = openbao.api("POST", "auth/token/lookup", {"token": openbao.token("app-brief")})
            ends.add(found["data"]["expire_time"])
            return len(ends) == 3

        await until(is_renewed_twice)
        await store.store("mail", {"k": "v"})
    await store.close()


async def test_a_token_without_end_is_left_alone(openbao: OpenBao, settings: SecretStoreSettings) -> None:
    settings.token_file.write_text(json.dumps({"root_token": openbao._root}))
    store = SecretStore(settings)
    assert await store.connect() is None
    await store.close()


async def test_a_new_token_in_the_file_takes_the_place_of_one_that_is_refused(
    openbao: OpenBao, store: SecretStore
) -> None:
    old = openbao.token(KEY)
    openbao.new_token(KEY)
    openbao.revoke(old)
    await store.store("mail", {"k": "v"})
    assert await store.secret("mail") == {"k": "v"}


async def test_a_new_token_serves_all_who_were_refused_at_once(openbao: OpenBao, store: SecretStore) -> None:
    old = openbao.token(KEY)
    openbao.new_token(KEY)
    openbao.revoke(old)
    await asyncio.gather(*(store.store(f"mail-{number}", {"k": "v"}) for number in range(10)))


async def test_a_revoked_token_gives_503_and_is_told_once_until_a_new_one_comes(
    openbao: OpenBao, store: SecretStore, caplog: pytest.LogCaptureFixture
) -> None:
    token = openbao.token(KEY)
    openbao.revoke(token)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="permission denied") as raised:
            await store.store("mail", {"k": "v3ry-secret"})
        assert token not in str(raised.value)
    assert caplog.text.count("permission denied") == 1
    assert token not in caplog.text
    assert "v3ry-secret" not in caplog.text
    openbao.new_token(KEY)
    await store.store("mail", {"k": "v"})


async def test_secretstore_setup_is_asked_for_a_new_token_when_ours_has_ended(
    openbao: OpenBao, settings: SecretStoreSettings
) -> None:
    asked: list[str] = []
    setup = FastAPI()

    @setup.put("/api/v3/token/entityId/{entity}")
    def regenerate(entity: str) -> dict[str, int]:
        asked.append(entity)
        openbao.new_token(KEY)
        return {"statusCode": 200}

    async with answering(setup) as url:
        openbao.revoke(openbao.token(KEY))
        entity = read_token(settings.token_file).entity_id
        store = SecretStore(replace(settings, setup_url=url))
        await store.connect()
        await store.store("mail", {"k": "v"})
        await store.close()
    assert asked == [entity]


async def test_without_secretstore_setup_the_refusal_names_what_to_start(
    openbao: OpenBao, settings: SecretStoreSettings
) -> None:
    openbao.revoke(openbao.token(KEY))
    store = SecretStore(settings)
    with pytest.raises(UnavailableError, match="security-secretstore-setup at http://127"):
        await store.connect()
    await store.close()


@asynccontextmanager
async def answering(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app inside the block; yield its address."""
    sock = bind("127.0.0.1", 0, key="stand-in")
    server = WebServer(app)
    task = asyncio.create_task(server.serve([sock]))
    await server.listening.wait()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await task


@pytest.mark.parametrize(
    "content",
    [None, "", "not json", "[]", "{}", '{"auth": []}', '{"auth": {"client_token": ""}}',
     '{"auth": {"client_token": 7}}', '{"auth": {"client_token": "s.x\\ny: z"}}', "[" * 100_000],
)  # fmt: skip
def test_a_token_file_without_a_token_is_waited_for(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "secrets-token.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UnavailableError, match="security-secretstore-setup"):
        read_token(file)


# --- own JWT, and those of others ---------------------------------------------------------------------


async def test_our_own_jwt_is_kept_and_openbao_stands_by_it(store: SecretStore) -> None:
    first = await store.bearer()
    assert await store.bearer() is first
    assert await store.is_active(first.get_secret_value())
    assert not await store.is_active("no.such.token")


async def test_a_forgotten_jwt_is_replaced_but_not_by_another_ones_refusal(store: SecretStore) -> None:
    first = await store.bearer()
    store.forget(first)
    second = await store.bearer()
    assert second is not first
    store.forget(first)
    assert await store.bearer() is second


async def test_a_jwt_is_replaced_before_it_ends(openbao: OpenBao) -> None:
    store = SecretStore(openbao.add_service("app-brief-jwt", jwt_ttl="2s"))
    await store.connect()
    first = await store.bearer()

    async def is_another() -> bool:
        return await store.bearer() is not first

    async with asyncio.timeout(10):
        while not await is_another():
            assert await store.is_active(first.get_secret_value()), "it was kept for too long"
            await asyncio.sleep(0.05)
    assert await store.is_active((await store.bearer()).get_secret_value())
    await store.close()


# --- sealed, away -------------------------------------------------------------------------------------


async def test_sealed_is_told_once_known_things_go_on_and_unsealed_it_recovers_by_itself(
    openbao: OpenBao, store: SecretStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await store.store("mail", {"k": "v"})
    await store.secret("mail")
    bearer = await store.bearer()
    caplog.clear()
    async with sealed(openbao):
        for _ in range(3):
            with pytest.raises(UnavailableError, match=r"is sealed or on standby \(503\): unseal it"):
                await store.store("mail", {"k": "w"})
        assert await store.secret("mail") == {"k": "v"}
        assert await store.bearer() is bearer
    await store.store("mail", {"k": "w"})
    assert [record.message.split(";")[0] for record in caplog.records if record.name == secret_store.__name__] == [
        f"secret store: OpenBao at {openbao.url} is sealed or on standby (503): unseal it",
        f"secret store: OpenBao at {openbao.url} answers",
    ]


async def test_the_renewal_outlives_a_sealed_openbao(
    openbao: OpenBao, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(secret_store, "RETRY_S", 0.05)
    caplog.set_level(logging.INFO)
    store = SecretStore(openbao.add_service("app-patient", token_ttl="4s"))
    due_in_s = await store.connect()
    async with renewing(store, due_in_s):
        async with sealed(openbao):
            await until(lambda: "is sealed" in caplog.text)
            caplog.clear()
        await until(lambda: f"{openbao.url} answers" in caplog.text)
        await store.store("mail", {"k": "v"})
    await store.close()


async def test_an_openbao_that_is_away_is_unavailable(settings: SecretStoreSettings) -> None:
    store = SecretStore(replace(settings, port=free_port()))
    with pytest.raises(UnavailableError, match=r"does not answer: .*: is it up"):
        await store.connect()
    await store.close()


async def test_an_openbao_that_hangs_is_unavailable_in_time(
    settings: SecretStoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_store, "DEADLINE_S", 0.2)

    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        store = SecretStore(replace(settings, port=server.sockets[0].getsockname()[1]))
        with pytest.raises(UnavailableError, match="does not answer"):
            await store.connect()
        await store.close()
        async with asyncio.timeout(5):
            await gone.wait()


async def test_something_else_on_openbaos_port_is_told(settings: SecretStoreSettings) -> None:
    other = FastAPI()

    @other.get("/v1/auth/token/lookup-self")
    def page() -> str:
        return "hello"

    async with answering(other) as url:
        store = SecretStore(replace(settings, port=int(url.rsplit(":", 1)[1])))
        with pytest.raises(UpstreamError, match="is this OpenBao"):
            await store.connect()
        await store.close()


def test_a_certificate_authority_that_cannot_be_read_is_told(settings: SecretStoreSettings, tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match="SECRETSTORE_ROOTCACERTPATH"):
        SecretStore(replace(settings, root_ca_file=str(missing)))
    missing.write_text("no certificate")
    with pytest.raises(ConfigurationError, match="SECRETSTORE_ROOTCACERTPATH"):
        SecretStore(replace(settings, root_ca_file=str(missing)))
