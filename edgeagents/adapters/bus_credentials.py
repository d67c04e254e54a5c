"""How a service proves itself to EdgeX's MQTT broker: `MessageBus.AuthMode` and the secret it names, as MQTT options.

    login = await bus_login(service.config, service.secrets)
    MqttTransport(url, key, user=login.user, password=login.password, tls=login.tls)

Source: edgex-wire.md sections 1.5 and 1.7.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeagents.adapters.config import parse_bool
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.security import Secrets
from edgeagents.errors import ConfigurationError, NotFoundError

MODES: Final = ("none", "usernamepassword", "clientcert", "cacert")
_CERT: Final = ("clientcert", "clientkey")
_ENCRYPTED: Final = ("tcps", "ssl", "tls", "mqtts")


@dataclass(frozen=True, slots=True)
class BusLogin:
    """What an MQTT client is opened with."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


async def bus_login(config: LiveConfig, secrets: Secrets, *, is_secure: bool = True) -> BusLogin:
    """Return the login that the section `MessageBus` asks for.

    Args:
        config: `AuthMode`, `SecretName`, `Protocol` and `Optional/SkipCertVerify` of `MessageBus` count.
        secrets: where the secret is.
        is_secure: in insecure mode a user and password may be missing.

    Raises:
        ConfigurationError: an unknown mode; a secret that is missing, lacks a key or holds no usable certificate.
        UnavailableError: the secret store does not answer.
    """
    mode, name = config.text("MessageBus/AuthMode").lower() or "none", config.text("MessageBus/SecretName")
    if mode not in MODES:
        raise ConfigurationError(f"configuration MessageBus/AuthMode: {mode!r}: write one of {', '.join(MODES)}")
    data: Mapping[str, str] = {}
    if mode != "none":
        try:
            data = await secrets.secret(name)
        except NotFoundError as error:
            raise ConfigurationError(
                f"configuration MessageBus: AuthMode is {mode}, but there is no secret {name!r} (SecretName): "
                "store it (POST /api/v3/secret), or name it rightly"
            ) from error
    skips = _flag(config.text("MessageBus/Optional/SkipCertVerify"))
    needs_tls = config.text("MessageBus/Protocol").lower() in _ENCRYPTED
    return await asyncio.to_thread(login_of, mode, name, data, needs_tls, skips, is_secure)


def login_of(
    mode: str, name: str, data: Mapping[str, str], needs_tls: bool = False, skips: bool = False, is_secure: bool = True
) -> BusLogin:
    """Return the login that a secret's data makes in one mode; reads and writes files for a moment.

    Raises:
        ConfigurationError: a key is missing, or a certificate is none; names mode, secret and key.
    """
    needed = {
        "usernamepassword": ("username", "password") if is_secure else (),
        "clientcert": _CERT,
        "cacert": ("cacert",),
    }
    missing = [key for key in needed.get(mode, ()) if not data.get(key)]
    if missing:
        raise ConfigurationError(
            f"secret {name!r}: MessageBus/AuthMode {mode} needs {' and '.join(missing)} in it: store it again"
        )
    has_certificate = mode == "clientcert"
    ca = data.get("cacert", "")
    tls = None
    if ca or has_certificate or needs_tls:
        tls = _tls(name, ca, data if has_certificate else {}, skips)
    if mode != "usernamepassword":
        return BusLogin(tls=tls)
    return BusLogin(data.get("username") or None, data.get("password") or None, tls)


def _tls(name: str, ca: str, pair: Mapping[str, str], skips: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca or None)
    except (ssl.SSLError, ValueError, TypeError) as error:  # TypeError: not ASCII
        raise ConfigurationError(f"secret {name!r}: cacert is no certificate in PEM: store it again") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if skips:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pair:
        # Python loads certificates from files alone: a private folder, gone at once.
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = (Path(folder, part) for part in _CERT)
            for file in (certificate, key):
                file.write_text(pair[file.name], encoding="utf-8")
            try:
                context.load_cert_chain(certificate, key, password=lambda: "")
            except (ssl.SSLError, ValueError) as error:
                raise ConfigurationError(
                    f"secret {name!r}: clientcert and clientkey are no certificate and its key in PEM "
                    "(without a passphrase): store them again"
                ) from error
    return context


def _flag(text: str) -> bool:
    try:
        return parse_bool(text or "false")
    except ValueError as error:
        raise ConfigurationError(
            f"configuration MessageBus/Optional/SkipCertVerify: {text!r}: write true or false"
        ) from error
