"""HTTPS from a secret: it serves, and what is missing or wrong is named."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from edgeagents.adapters.defaults import common_defaults
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.serving import bind, listening
from edgeagents.adapters.tls import ReadSecret, scheme_of, server_tls
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import ConfigurationError, NotFoundError
from tests.certificates import a_pair
from tests.nats import free_port


def config_of(**http_server: Any) -> LiveConfig:
    """Return the configuration of an app service with this `HttpServer`."""
    return LiveConfig("app-x", "app", common_defaults("app"), private={"HttpServer": http_server})


def https() -> LiveConfig:
    """Return a configuration that asks for HTTPS."""
    return config_of(Protocol="https", SecretName="web", HTTPSCertName="crt", HTTPSKeyName="key")


def secret_of(**data: str) -> ReadSecret:
    """Return a reader of one secret, `web`."""

    async def read(name: str) -> Mapping[str, str]:
        if name != "web":
            raise NotFoundError(f"no secret {name}")
        return data

    return read


async def test_a_service_answers_https_with_the_certificate_of_its_secret() -> None:
    certificate, key = a_pair()
    tls = await server_tls(https(), secret_of(crt=certificate, key=key))
    assert tls is not None
    trusting = ssl.create_default_context(cadata=certificate)
    with bind("127.0.0.1", free_port(), key="app-x") as sock:
        url = f"https://127.0.0.1:{sock.getsockname()[1]}"
        app = make_app(WebContext("app-x", "4.0.0", dict, None))
        async with (
            asyncio.TaskGroup() as tasks,
            httpx.AsyncClient(verify=trusting, trust_env=False) as client,
            listening(app, sock, tasks, tls),
        ):
            answer = await client.get(f"{url}/api/v3/ping")
            with pytest.raises(httpx.HTTPError):
                await client.get(url.replace("https", "http") + "/api/v3/ping")
    assert answer.json()["serviceName"] == "app-x"


@pytest.mark.parametrize("protocol", ["", "http", "HTTP"])
async def test_plain_http_needs_no_secret(protocol: str) -> None:
    config = config_of(Protocol=protocol)
    assert (scheme_of(config), await server_tls(config, secret_of())) == ("http", None)


def test_https_is_what_keeper_is_told() -> None:
    assert scheme_of(https()) == "https"


async def test_another_protocol_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'gopher': write http or https"):
        await server_tls(config_of(Protocol="gopher"), secret_of())


async def test_a_missing_secret_or_part_of_it_is_named() -> None:
    certificate, key = a_pair()
    for read, part in ((secret_of(), "'crt'"), (secret_of(crt=certificate), "'key'")):
        with pytest.raises(ConfigurationError, match=f"secret 'web' holds no {part}"):
            await server_tls(https(), read)
    with pytest.raises(ConfigurationError, match="secret 'other' holds no"):
        await server_tls(config_of(Protocol="https", SecretName="other"), secret_of(crt=certificate, key=key))


async def test_a_key_of_another_certificate_or_no_pem_is_refused_without_showing_it() -> None:
    certificate, key = a_pair()
    for wrong in (a_pair()[1], "no pem", key.replace("PRIVATE", "PUBLIC")):
        with pytest.raises(ConfigurationError, match="certificate and key do not work") as refusal:
            await server_tls(https(), secret_of(crt=certificate, key=wrong))
        assert wrong not in str(refusal.value)
