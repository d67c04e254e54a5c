"""MQTT with TLS, user and password, and client certificates, against a real nats-server that asks for them."""

import asyncio
import datetime
import functools
import gc
import ipaddress
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeagents.adapters.bus_credentials import login_of
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.errors import UnavailableError
from edgeagents.model.envelope import Envelope
from tests.integration.test_mqtt import listen, next_of
from tests.nats import NatsServer, until

TOPIC = "edgex/events/device/svc/p/d/r"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM texts."""

    cert: str
    key: str


class Authority:
    """A certificate authority of this test's own."""

    def __init__(self) -> None:
        """Make its key and certificate."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        self.pem = self._signed(builder.add_extension(usage, True))

    def issue(self, name: str) -> Pair:
        """Return a certificate for 127.0.0.1, good for a server and for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = self._builder(subject, key).add_extension(address, False).add_extension(usage, False)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return Pair(self._signed(builder), pem)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(own, False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> str:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority that all here trust."""
    return Authority()


@contextmanager
def broker(folder: Path, authority: Authority, mqtt: str) -> Iterator[NatsServer]:
    """Run a server whose MQTT listener is configured by `mqtt`; its files lie in `folder`."""
    pair = authority.issue("broker")
    for name, text in (("ca.pem", authority.pem), ("cert.pem", pair.cert), ("key.pem", pair.key)):
        (folder / name).write_text(text)
    server = NatsServer(folder, mqtt=mqtt.replace("FOLDER", str(folder)))
    server.start()
    try:
        yield server
    finally:
        server.kill()


TLS = 'tls { cert_file: "FOLDER/cert.pem", key_file: "FOLDER/key.pem" }'
MUTUAL = 'tls { cert_file: "FOLDER/cert.pem", key_file: "FOLDER/key.pem", ca_file: "FOLDER/ca.pem", verify: true }'
USER = 'authorization { username: "edgex", password: "s3cret ä" }'


async def carries(transport: MqttTransport) -> None:
    """Check that a connection carries a message there and back."""
    arrived = await listen(transport, "edgex/#")
    await transport.publish(TOPIC, Envelope("x"))
    assert (await next_of(arrived))[0] == TOPIC


async def is_refused(transport: Callable[[], MqttTransport], why: str) -> None:
    """Check that a connection never comes about, and that `why` is said; a broker may take a while to say anything."""
    async with asyncio.timeout(30):
        while True:
            with pytest.raises(UnavailableError, match="no MQTT connection") as told:
                await transport().__aenter__()
            if re.search(why, str(told.value)):
                return


async def test_over_tls_with_the_authority_of_the_secret(tmp_path: Path, authority: Authority) -> None:
    login = login_of("cacert", "bus", {"cacert": authority.pem})
    with broker(tmp_path, authority, TLS) as server:
        for url in (server.mqtt_url, server.mqtt_url.replace("mqtt:", "mqtts:")):
            async with MqttTransport(url, "tls", tls=login.tls) as transport:
                await carries(transport)


# paho leaves the socket of a handshake that failed to the garbage collector, which warns; here it does so at once.
LEFT_BEHIND = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEFT_BEHIND
async def test_a_broker_that_no_authority_vouches_for_is_not_talked_to(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeagents.adapters.mqtt.CONNECT_S", 1.0)
    other = ssl.create_default_context(cadata=Authority().pem)
    with broker(tmp_path, authority, TLS) as server:
        url = server.mqtt_url.replace("mqtt:", "mqtts:")
        for tls in (other, None):
            await is_refused(functools.partial(MqttTransport, url, "no", tls=tls), "CERTIFICATE_VERIFY_FAILED")
    gc.collect()


async def test_user_and_password(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    login = login_of("usernamepassword", "bus", {"username": "edgex", "password": "s3cret ä"})
    with broker(tmp_path, authority, USER) as server:
        async with MqttTransport(server.mqtt_url, "user", user=login.user, password=login.password) as transport:
            await carries(transport)
        monkeypatch.setattr("edgeagents.adapters.mqtt.CONNECT_S", 1.0)  # only now: what succeeds has its time
        for user, password in (("edgex", "wrong"), (None, None)):
            wrong = functools.partial(MqttTransport, server.mqtt_url, "wrong", user=user, password=password)
            await is_refused(wrong, "authori")


async def test_a_client_certificate(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    own = authority.issue("app-guard")
    secret = {"clientcert": own.cert, "clientkey": own.key, "cacert": authority.pem}
    login = login_of("clientcert", "bus", secret)
    with broker(tmp_path, authority, MUTUAL) as server:
        async with MqttTransport(server.mqtt_url, "certificate", tls=login.tls) as transport:
            await carries(transport)
        without = login_of("cacert", "bus", {"cacert": authority.pem})
        monkeypatch.setattr("edgeagents.adapters.mqtt.CONNECT_S", 1.0)  # only now: what succeeds has its time
        with pytest.raises(UnavailableError, match="no MQTT connection"):
            await MqttTransport(server.mqtt_url, "none", tls=without.tls).__aenter__()


async def test_a_secure_link_comes_back_after_a_restart_of_the_broker(tmp_path: Path, authority: Authority) -> None:
    login = login_of("cacert", "bus", {"cacert": authority.pem})
    with broker(tmp_path, authority, f"{TLS}\n{USER}") as server:
        async with MqttTransport(
            server.mqtt_url, "back", user="edgex", password="s3cret ä", tls=login.tls
        ) as transport:
            arrived = await listen(transport, "edgex/#")
            await transport.publish(TOPIC, Envelope("before"))
            await next_of(arrived)
            server.kill()
            await until(lambda: not transport.is_connected)
            await asyncio.to_thread(server.start)
            await until(lambda: transport.is_connected)
            await transport.publish(TOPIC, Envelope("after"))
            assert b"after" in (await next_of(arrived))[1]
