"""HTTPS for a service's own web server, as EdgeX's `HttpServer` section asks for it.

    HttpServer: {Protocol: https, SecretName: https, HTTPSCertName: cert, HTTPSKeyName: key}

Certificate (with its chain) and key are PEM texts in one secret. Who calls the service, keeper's health check
too, must trust the certificate.

Source: `HttpServer` of EdgeX app services 4.0; edgex-wire.md section 3.4.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal

from edgeagents.adapters.live_config import LiveConfig
from edgeagents.errors import ConfigurationError, NotFoundError

ReadSecret = Callable[[str], Awaitable[Mapping[str, str]]]


def scheme_of(config: LiveConfig) -> Literal["http", "https"]:
    """Return what `HttpServer/Protocol` says; http when it says nothing.

    Raises:
        ConfigurationError: it is neither http nor https.
    """
    match config.text("HttpServer/Protocol").strip().lower():
        case "" | "http":
            return "http"
        case "https":
            return "https"
        case other:
            raise ConfigurationError(f"configuration HttpServer/Protocol: {other!r}: write http or https")


async def server_tls(config: LiveConfig, read_secret: ReadSecret) -> ssl.SSLContext | None:
    """Return what the web server proves itself with; None for plain HTTP.

    Args:
        config: its `HttpServer` section counts.
        read_secret: returns a secret's data by name.

    Raises:
        ConfigurationError: the secret, or a part of it, is missing or no usable certificate and key.
        UnavailableError: the secret store does not answer.
    """
    if scheme_of(config) == "http":
        return None
    name = config.text("HttpServer/SecretName")
    try:
        secret = await read_secret(name)
    except NotFoundError:
        secret = {}
    texts = []
    for setting in ("HTTPSCertName", "HTTPSKeyName"):
        key = config.text(f"HttpServer/{setting}")
        if not secret.get(key):
            raise ConfigurationError(
                f"configuration HttpServer: Protocol is https, but secret {name!r} holds no {key!r} ({setting}): "
                "store it (POST /api/v3/secret while Protocol is http, or Writable/InsecureSecrets), or name it rightly"
            )
        texts.append(secret[key])
    return await asyncio.to_thread(_context, name, *texts)


def _context(name: str, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python loads certificates from files alone: a private folder, gone at once.
    with tempfile.TemporaryDirectory() as folder:
        cert_file, key_file = Path(folder, "cert.pem"), Path(folder, "key.pem")
        cert_file.write_text(certificate, encoding="utf-8")
        key_file.write_text(key, encoding="utf-8")
        try:
            context.load_cert_chain(cert_file, key_file, password="")  # an encrypted key must not ask a terminal
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"secret {name!r} of HttpServer: certificate and key do not work: {error}: PEM texts of one pair?"
            ) from error
    return context
