"""Services in secure mode: real OpenBao, real nats-server, a keeper that demands tokens, and callers of every kind."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI

from edgeagents.adapters import secret_store
from edgeagents.adapters.auth import AuthMiddleware
from edgeagents.adapters.bootstrap import EdgexService, ServiceSpec, serve
from edgeagents.adapters.jwt_auth import IssuerKeys, JwtCheck
from edgeagents.adapters.options import read_options
from edgeagents.adapters.rest import FixedAddress, Rest, make_http
from edgeagents.adapters.secret_store import SecretStore
from edgeagents.adapters.serving import WebServer, bind
from edgeagents.settings import SiteTime
from tests.contract.waiting import until
from tests.fake_edgex import FakeEdgex
from tests.nats import NatsServer, free_port
from tests.openbao import OpenBao, openbao_in
from tests.tokens import ISSUER, ProxyAuth, by_hand, public, signed, unsigned_claims

SECRET_VALUE = "n0-log-may-hold-this"


@pytest.fixture(scope="module")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One OpenBao for the whole file: each test leaves it unsealed."""
    with openbao_in(tmp_path_factory.mktemp("openbao")) as server:
        for key in ("app-one", "app-two", "app-caller"):
            server.add_service(key)
        yield server


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Give the root logger its level back: a service sets it."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@dataclass
class Gateway:
    """What stands around the services."""

    edgex: FakeEdgex
    proxy: ProxyAuth
    nats: NatsServer
    bao: OpenBao

    @asynccontextmanager
    async def service(self, key: str, *, tokens: bool = True, **environ: str) -> AsyncIterator[EdgexService]:
        """Have a service of ours running inside the block; it ends in order after it."""
        built: asyncio.Future[EdgexService] = asyncio.get_running_loop().create_future()
        stopping = asyncio.Event()

        @asynccontextmanager
        async def build(service: EdgexService) -> AsyncIterator[None]:
            built.set_result(service)
            yield

        task = asyncio.create_task(self.started(key, build, stopping, **environ))
        try:
            async with asyncio.timeout(20):
                await asyncio.wait({task, built}, return_when=asyncio.FIRST_COMPLETED)
                assert not task.done(), "the service ended by itself: see the log"
                await until(lambda: key in self.edgex.registry, "the registration")
            yield built.result()
        finally:
            stopping.set()
            async with asyncio.timeout(10):
                assert await task == 0

    async def started(self, key: str, build: object, stopping: asyncio.Event, **environ: str) -> int:
        """Run a service as its environment says; return its exit code."""
        variables = self.environ(key) | environ
        options = read_options(key, ["-cp=keeper." + self.edgex.url, "-r"], variables)
        spec = ServiceSpec(key, "app", free_port(), {})
        return await serve(spec, build, options, self.nats.settings(), SiteTime(), stopping, variables)  # type: ignore[arg-type]

    def environ(self, key: str) -> dict[str, str]:
        """Return what a deployment sets."""
        return {
            "SECRETSTORE_HOST": "127.0.0.1", "SECRETSTORE_PORT": str(self.bao.port),
            "SECRETSTORE_TOKENFILE": str(self.bao.token_file(key)), "SERVICE_HOST": "127.0.0.1",
            "CLIENTS_SECURITY_SECRETSTORE_SETUP_PORT": str(free_port()), "EDGEX_STARTUP_DURATION": "10",
            "EDGEX_STARTUP_INTERVAL": "0.05",
        }  # fmt: skip


@asynccontextmanager
async def answering(app: FastAPI) -> AsyncIterator[int]:
    """Serve an app inside the block; yield its port."""
    sock = bind("127.0.0.1", 0, key="stand-in")
    server = WebServer(app)
    task = asyncio.create_task(server.serve([sock]))
    await server.listening.wait()
    yield sock.getsockname()[1]
    server.should_exit = True
    await task


@pytest.fixture
async def gateway(openbao: OpenBao, nats_server: NatsServer) -> AsyncIterator[Gateway]:
    """A keeper and core-metadata that demand tokens, and security-proxy-auth in keeper's registry."""
    edgex, proxy = FakeEdgex(), ProxyAuth()
    proxy.keys |= {ISSUER: public("p256"), "rsa-issuer": public("rsa")}
    async with AsyncExitStack() as stack:
        keepers = SecretStore(openbao.add_service("core-keeper"))
        stack.push_async_callback(keepers.close)
        await keepers.connect()
        port = await stack.enter_async_context(answering(proxy.app))
        http = await stack.enter_async_context(make_http())
        keys = IssuerKeys(Rest("security-proxy-auth", FixedAddress(f"http://127.0.0.1:{port}"), http))
        edgex.app.add_middleware(AuthMiddleware, check=JwtCheck(keepers.is_active, keys, 5.0).check)
        await stack.enter_async_context(edgex.serving())
        edgex.register_core()
        entry = {"serviceId": "security-proxy-auth", "host": "127.0.0.1", "port": port, "status": "UP"}
        edgex.registry["security-proxy-auth"] = entry | {"HealthCheck": {}}
        yield Gateway(edgex, proxy, nats_server, openbao)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A caller."""
    async with make_http() as client:
        yield client


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_service_starts_registers_and_keeps_secrets_in_openbao(
    gateway: Gateway, openbao: OpenBao, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    jwt = openbao.jwt("app-caller")
    async with gateway.service("app-one") as service:
        # Keeper demands a token: that the service got this far shows that it sent its own.
        body = {"apiVersion": "v3", "secretName": "mail", "secretData": [{"key": "password", "value": SECRET_VALUE}]}
        url = f"{service.base_url}/api/v3/secret"
        answer = await http.post(url, json=body, headers=bearing(jwt))
        assert (answer.status_code, answer.json()) == (201, {"apiVersion": "v3", "statusCode": 201})
        assert openbao.api("GET", "secret/edgex/app-one/mail")["data"] == {"password": SECRET_VALUE}
        assert await service.secret("mail") == {"password": SECRET_VALUE}
        assert await service.secret("nothing") == {}
        assert not any(SECRET_VALUE in text for text in gateway.edgex.kvs.values())
        shown = await http.get(f"{service.base_url}/api/v3/config", headers=bearing(jwt))
        assert shown.status_code == 200
        refused = await http.post(url, json=body | {"secretName": "../x"}, headers=bearing(jwt))
        assert refused.status_code == 400
        metrics = {name for name, _ in service.metrics._metrics}
        assert {"SecuritySecretsRequested", "SecuritySecretsStored", "SecurityGetSecretDuration"} <= metrics
        token, own = openbao.token("app-one"), (await service.security.tokens.bearer()).get_secret_value()  # type: ignore[union-attr]
        for hidden in (SECRET_VALUE, token, own, jwt):
            assert hidden not in shown.text + refused.text
            assert hidden not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        {"secretName": "", "secretData": [{"key": "k", "value": "v"}]},
        {"secretName": "n", "secretData": []},
        {"secretName": "n", "secretData": [{"key": "", "value": "v"}]},
        {"secretName": "n", "secretData": [{"key": "k", "value": ""}]},
        {"secretName": "n", "secretData": [{"value": "v"}]},
    ],
)
async def test_a_secret_without_names_or_values_is_400(
    gateway: Gateway, openbao: OpenBao, http: httpx.AsyncClient, body: dict[str, object]
) -> None:
    async with gateway.service("app-one") as service:
        answer = await http.post(
            f"{service.base_url}/api/v3/secret", json=body, headers=bearing(openbao.jwt("app-caller"))
        )
        assert answer.status_code == 400
        assert answer.json()["statusCode"] == 400


async def test_only_tokens_that_count_come_in_and_ping_needs_none(
    gateway: Gateway, openbao: OpenBao, http: httpx.AsyncClient
) -> None:
    of_openbao = openbao.jwt("app-caller")
    good = {
        "OpenBao's": of_openbao, "an issuer's": signed(), "its RSA": signed("rsa", "PS256", iss="rsa-issuer"),
    }  # fmt: skip
    confused = by_hand({"alg": "HS256"}, unsigned_claims(iss="rsa-issuer"), secret=public("rsa").encode())
    claims = of_openbao.split(".")[1]
    bad = {
        "missing": "", "garbage": "g4rbage", "wrong signature": signed()[:-8] + "AAAAAAAA",
        "another's key": signed("p384", "ES384"), "none": by_hand({"alg": "none"}, unsigned_claims()),
        "HS256 with the RSA public key": confused, "expired": signed(exp=1), "no expiry": signed(exp=None),
        "unknown issuer": signed(iss="nobody"), "OpenBao's, changed": of_openbao[:-8] + "AAAAAAAA",
        "OpenBao's, unsigned": by_hand({"alg": "none"}, b"{}").split(".")[0] + f".{claims}.",
        "called OpenBao's": signed(iss="/v1/identity/oidc"),
    }  # fmt: skip
    async with gateway.service("app-one") as service:
        for path in ("version", "config"):
            url = f"{service.base_url}/api/v3/{path}"
            for name, token in good.items():
                assert (await http.get(url, headers=bearing(token))).status_code == 200, name
            for name, token in bad.items():
                answer = await http.get(url, headers=bearing(token) if token else {})
                assert answer.status_code == 401, name
                assert answer.json()["statusCode"] == 401, name
                assert not token or token not in answer.text, name
        assert (await http.get(f"{service.base_url}/api/v3/ping")).status_code == 200


async def test_an_expired_token_of_openbao_is_refused_at_once(
    gateway: Gateway, openbao: OpenBao, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEAGENTS_JWT_LEEWAY_S", "0")
    openbao.add_service("app-past", jwt_ttl="1s")
    async with gateway.service("app-one") as service:
        token = openbao.jwt("app-past")

        async def is_refused() -> bool:
            answer = await http.get(f"{service.base_url}/api/v3/version", headers=bearing(token))
            return answer.status_code == 401

        # OpenBao itself would let it live a minute longer.
        await until(is_refused, "the refusal", timeout_s=5)


async def test_services_of_ours_accept_each_other_also_after_a_token_ends_mid_stream(
    gateway: Gateway, openbao: OpenBao
) -> None:
    async with gateway.service("app-one") as one, gateway.service("app-two") as two:
        calls = Rest("app-two", FixedAddress(two.base_url), one.http, tokens=one.security.tokens)
        assert (await calls.call("GET", "/api/v3/version"))["serviceName"] == "app-two"
        assert one.security.tokens is not None
        before = await one.security.tokens.bearer()
        # Every token that was issued so far is worth nothing from now on.
        openbao.api("POST", "identity/oidc/key/edgex-identity/rotate", {"verification_ttl": 0})
        assert (await calls.call("GET", "/api/v3/version"))["serviceName"] == "app-two"
        assert await one.security.tokens.bearer() is not before
        assert one.keeper is not None
        await one.keeper.registration("app-two")


async def test_sealed_is_503_to_callers_logged_once_and_over_when_unsealed(
    gateway: Gateway, openbao: OpenBao, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(secret_store, "RETRY_S", 0.1)
    caplog.set_level(logging.INFO, secret_store.__name__)
    jwt = openbao.jwt("app-caller")
    body = {"apiVersion": "v3", "secretName": "mail", "secretData": [{"key": "password", "value": SECRET_VALUE}]}
    async with gateway.service("app-two") as service:
        url = f"{service.base_url}/api/v3"
        assert (await http.get(f"{url}/version", headers=bearing(signed()))).status_code == 200
        caplog.clear()
        openbao.seal()
        try:
            for _ in range(3):
                answer = await http.get(f"{url}/version", headers=bearing(jwt))
                assert (answer.status_code, answer.json()["statusCode"]) == (503, 503)
                assert "sealed" in answer.json()["message"]
                # Nobody has to ask OpenBao for these, once the issuer's key is known.
                assert (await http.get(f"{url}/version", headers=bearing(signed()))).status_code == 200
                assert (await http.get(f"{url}/ping")).status_code == 200
                stored = await http.post(f"{url}/secret", json=body, headers=bearing(signed()))
                assert stored.status_code == 503
                assert SECRET_VALUE not in stored.text
            told = [record for record in caplog.records if record.name == secret_store.__name__]
            assert len([record for record in told if "sealed" in record.message]) <= 2  # keeper's stand-in is another
        finally:
            openbao.unseal()
        assert (await http.post(f"{url}/secret", json=body, headers=bearing(jwt))).status_code == 201
        assert await service.secret("mail") == {"password": SECRET_VALUE}


async def test_without_security_proxy_auth_its_tokens_wait_and_openbaos_go_on(
    gateway: Gateway, openbao: OpenBao, http: httpx.AsyncClient
) -> None:
    del gateway.edgex.registry["security-proxy-auth"]
    async with gateway.service("app-one") as service:
        url = f"{service.base_url}/api/v3/version"
        assert (await http.get(url, headers=bearing(signed()))).status_code == 503
        assert (await http.get(url, headers=bearing(openbao.jwt("app-caller")))).status_code == 200


async def test_the_check_can_be_disabled(gateway: Gateway, http: httpx.AsyncClient) -> None:
    async with gateway.service("app-one", EDGEX_DISABLE_JWT_VALIDATION="true") as service:
        assert (await http.get(f"{service.base_url}/api/v3/version")).status_code == 200


async def test_a_service_waits_for_its_token_file(
    gateway: Gateway, openbao: OpenBao, caplog: pytest.LogCaptureFixture
) -> None:
    file = openbao.token_file("app-one")
    later = file.rename(file.with_suffix(".later"))

    async def bring() -> None:
        await until(lambda: "has security-secretstore-setup run" in caplog.text, "the wait for the token file")
        later.rename(file)

    task = asyncio.create_task(bring())
    async with gateway.service("app-one") as service:
        assert await service.secret("nothing") == {}
    await task


async def test_a_service_waits_for_a_sealed_openbao(
    gateway: Gateway, openbao: OpenBao, caplog: pytest.LogCaptureFixture
) -> None:
    openbao.seal()

    async def unseal() -> None:
        try:
            await until(lambda: "waiting for the secret store" in caplog.text, "the wait for OpenBao")
        finally:
            await asyncio.to_thread(openbao.unseal)

    task = asyncio.create_task(unseal())
    async with gateway.service("app-one") as service:
        assert await service.secret("nothing") == {}
    await task
    assert "is sealed or on standby (503): unseal it" in caplog.text


async def test_a_token_file_that_never_comes_ends_the_start_with_the_remedy(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    missing = {"SECRETSTORE_TOKENFILE": "/nowhere/secrets-token.json", "EDGEX_STARTUP_DURATION": "0.2"}
    async with asyncio.timeout(10):
        assert await gateway.started("app-one", None, asyncio.Event(), **missing) == 1
    assert "gave up waiting for the secret store" in caplog.text
    assert "/nowhere/secrets-token.json" in caplog.text
    assert "EDGEX_SECURITY_SECRET_STORE=false" in caplog.text
