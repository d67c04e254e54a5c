"""AuthMode and a secret's data as the login of an MQTT client."""

import datetime as dt
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from edgeagents.adapters.bus_credentials import bus_login, login_of
from edgeagents.adapters.defaults import common_defaults
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.security import InsecureSecrets
from edgeagents.errors import ConfigurationError


def certificate() -> tuple[ec.EllipticCurvePrivateKey, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    return key, made.public_bytes(Encoding.PEM).decode()


PRIVATE, CERT = certificate()
KEY = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
LOCKED = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")).decode()
OTHER_KEY = certificate()[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_user_and_password_come_from_the_secret_and_are_not_shown() -> None:
    login = login_of("usernamepassword", "message-bus", {"username": "u", "password": "h1dden"})
    assert (login.user, login.password, login.tls) == ("u", "h1dden", None)
    assert "h1dden" not in repr(login)


def test_a_ca_in_the_secret_encrypts_in_every_mode() -> None:
    for mode, data in (
        ("usernamepassword", {"username": "u", "password": "p"}),
        ("cacert", {}),
        ("clientcert", {"clientcert": CERT, "clientkey": KEY}),
    ):
        tls = login_of(mode, "s", data | {"cacert": CERT}).tls
        assert tls is not None
        assert tls.verify_mode == ssl.CERT_REQUIRED
        assert tls.check_hostname
        assert [found["serialNumber"] for found in tls.get_ca_certs()] == ["01"]


def test_a_client_certificate_without_a_ca_trusts_the_systems() -> None:
    login = login_of("clientcert", "s", {"clientcert": CERT, "clientkey": KEY, "username": "not asked for"})
    assert login.tls is not None
    assert (login.user, login.password) == (None, None)


def test_certificates_are_not_checked_only_when_told() -> None:
    tls = login_of("cacert", "s", {"cacert": CERT}, skips=True).tls
    assert tls is not None
    assert tls.verify_mode == ssl.CERT_NONE


def test_an_encrypted_protocol_needs_no_secret() -> None:
    assert login_of("none", "s", {}).tls is None
    assert login_of("none", "s", {}, needs_tls=True).tls is not None


def test_insecure_mode_lets_user_and_password_be_missing() -> None:
    assert login_of("usernamepassword", "s", {}, is_secure=False).user is None


@pytest.mark.parametrize(
    ("mode", "data", "told"),
    [
        ("usernamepassword", {"username": "u"}, "needs password"),
        ("usernamepassword", {}, "needs username and password"),
        ("clientcert", {"clientcert": CERT}, "needs clientkey"),
        ("clientcert", {"clientcert": CERT, "clientkey": OTHER_KEY}, "no certificate and its key"),
        ("clientcert", {"clientcert": CERT, "clientkey": LOCKED}, "without a passphrase"),
        ("clientcert", {"clientcert": "h1dden", "clientkey": "h1dden"}, "no certificate and its key"),
        ("cacert", {}, "needs cacert"),
        ("cacert", {"cacert": "h1dden"}, "cacert is no certificate"),
        ("cacert", {"cacert": "h1ddeñ"}, "cacert is no certificate"),
    ],
)
def test_what_the_secret_lacks_is_told_by_name_and_not_by_value(mode: str, data: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"secret 'message-bus': .*{told}") as raised:
        login_of(mode, "message-bus", data)
    assert "h1dd" not in str(raised.value)


def config(**bus: Any) -> LiveConfig:
    secrets = {"mine": {"SecretName": "mine", "SecretData": {"username": "u", "password": "p"}}}
    private = {"MessageBus": bus, "Writable": {"InsecureSecrets": secrets}}
    return LiveConfig("app-x", "app", common_defaults("app"), private=private)


async def test_the_login_follows_the_configuration() -> None:
    wanted = config(AuthMode="usernamepassword", SecretName="mine", Protocol="ssl", Optional={"SkipCertVerify": "true"})
    login = await bus_login(wanted, InsecureSecrets(wanted, None))
    assert (login.user, login.password) == ("u", "p")
    assert login.tls is not None
    assert login.tls.verify_mode == ssl.CERT_NONE


async def test_without_an_auth_mode_there_is_no_login() -> None:
    plain = config()
    assert await bus_login(plain, InsecureSecrets(plain, None)) == login_of("none", "", {})


@pytest.mark.parametrize(
    ("bus", "told"),
    [
        ({"AuthMode": "kerberos"}, "AuthMode: 'kerberos'"),
        ({"AuthMode": "usernamepassword", "SecretName": "nobody's"}, 'no secret "nobody\'s"'),
        ({"Optional": {"SkipCertVerify": "perhaps"}}, "SkipCertVerify"),
    ],
)
async def test_a_configuration_that_cannot_be_is_told(bus: dict[str, Any], told: str) -> None:
    wrong = config(**bus)
    with pytest.raises(ConfigurationError, match=told):
        await bus_login(wrong, InsecureSecrets(wrong, None))
