"""Where a service's secret store is, and the token that opens it: what EdgeX names `SecretStore`.

The token lies in a file that EdgeX's secretstore-setup writes, one for each service; nobody passes it by
environment or configuration.

Source: edgex-wire.md section 4, "Secure mode"; `SecretStore` settings of EdgeX 4.0.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters.config import override
from edgeagents.adapters.ports import host_in_url
from edgeagents.errors import ConfigurationError, UnavailableError
from edgeagents.settings import PREFIX

SECURE: Final = "EDGEX_SECURITY_SECRET_STORE"
COMMON_KEY: Final = "EDGEX_USE_COMMON_APP_SERVICE_SECRET_KEY"
_COMMON_IDENTITY: Final = "app-service"


class JwtSettings(BaseSettings):
    """How tokens of callers are checked."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}JWT_", frozen=True, allow_inf_nan=False)

    leeway_s: float = Field(5.0, ge=0, le=60, description="how far the clocks of issuer and service may be apart")


@dataclass(frozen=True, slots=True)
class SecretStoreSettings:
    """`SecretStore` of EdgeX: each field is set by `SECRETSTORE_<FIELD>`."""

    service_key: str
    store_name: str
    token_file: Path
    protocol: Literal["http", "https"] = "http"
    host: str = "localhost"
    port: int = 8200
    namespace: str = ""
    root_ca_file: str = ""
    server_name: str = ""
    secrets_file: str = ""
    scrub_secrets_file: bool = True
    setup_url: str = "http://localhost:59843"  # security-secretstore-setup: writes a new token file when asked
    identity: str = ""  # name of the OIDC role; empty: the service key

    @property
    def url(self) -> str:
        """Return OpenBao's address."""
        return f"{self.protocol}://{host_in_url(self.host)}:{self.port}"

    @property
    def secrets_path(self) -> str:
        """Return the path below which the service's own secrets lie."""
        return f"/v1/secret/edgex/{quote(self.store_name, safe='')}"

    @property
    def jwt_path(self) -> str:
        """Return the path that gives the service a JWT of its own."""
        return f"/v1/identity/oidc/token/{quote(self.identity or self.service_key, safe='')}"


@dataclass(frozen=True, slots=True)
class Token:
    """What the token file holds."""

    text: SecretStr
    entity_id: str = ""


def is_secure(environ: Mapping[str, str]) -> bool:
    """Say whether the service runs in secure mode: only the exact text `false` turns it off, as in EdgeX."""
    return environ.get(SECURE) != "false"


def secret_store_settings(key: str, environ: Mapping[str, str]) -> SecretStoreSettings | None:
    """Return where the secrets of the service `key` are kept; None in insecure mode.

    Raises:
        ConfigurationError: a variable that cannot be, or a way to get the token that is not supported.
    """
    if not is_secure(environ):
        return None
    found = override(_defaults(key), environ)
    store, setup = found["SecretStore"], found["Clients"]["security-secretstore-setup"]
    if store["RuntimeTokenProvider"]["Enabled"]:
        raise ConfigurationError(
            "SECRETSTORE_RUNTIMETOKENPROVIDER_ENABLED: tokens by SPIFFE are not supported: "
            "have secretstore-setup write a token file (EDGEX_ADD_SECRETSTORE_TOKENS) and unset it"
        )
    if store["Protocol"] not in ("http", "https"):
        raise ConfigurationError(f"SECRETSTORE_PROTOCOL={store['Protocol']!r}: write http or https")
    if not 0 < store["Port"] < 65536:
        raise ConfigurationError(f"SECRETSTORE_PORT={store['Port']}: write a port, e.g. 8200")
    shares_identity = key.startswith("app-") and environ.get(COMMON_KEY, "").lower() == "true"
    return SecretStoreSettings(
        service_key=key, store_name=store["StoreName"].strip(), token_file=Path(store["TokenFile"]),
        protocol=store["Protocol"], host=store["Host"], port=store["Port"], namespace=store["Namespace"],
        root_ca_file=store["RootCaCertPath"], server_name=store["ServerName"], secrets_file=store["SecretsFile"],
        scrub_secrets_file=not store["DisableScrubSecretsFile"],
        setup_url=f"{setup['Protocol']}://{host_in_url(setup['Host'])}:{setup['Port']}",
        identity=_COMMON_IDENTITY if shares_identity else key,
    )  # fmt: skip


def _defaults(key: str) -> dict[str, Any]:
    return {
        "SecretStore": {
            "Protocol": "http", "Host": "localhost", "Port": 8200, "StoreName": key, "Namespace": "",
            "TokenFile": f"/tmp/edgex/secrets/{key}/secrets-token.json",  # noqa: S108  where EdgeX writes it
            "RootCaCertPath": "", "ServerName": "", "SecretsFile": "", "DisableScrubSecretsFile": False,
            "RuntimeTokenProvider": {"Enabled": False},
        },
        "Clients": {"security-secretstore-setup": {"Protocol": "http", "Host": "localhost", "Port": 59843}},
    }  # fmt: skip


def read_token(path: Path) -> Token:
    """Return the token that a file of secretstore-setup holds.

    Raises:
        UnavailableError: it is not there, or holds no token (yet).
    """
    remedy = (
        "has security-secretstore-setup run, with this service key in EDGEX_ADD_SECRETSTORE_TOKENS? "
        f"On an EdgeX without security set {SECURE}=false"
    )
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnavailableError(f"token file {path}: {error.strerror}: {remedy}") from error
    except (ValueError, RecursionError):  # the cause would quote the file
        raise UnavailableError(f"token file {path} is not JSON: {remedy}") from None
    auth = parsed.get("auth") if isinstance(parsed, dict) else None
    given = auth if isinstance(auth, dict) else {}
    text = given.get("client_token") or (parsed.get("root_token") if isinstance(parsed, dict) else None)
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text.strip():
        raise UnavailableError(f"token file {path} holds no auth.client_token: {remedy}")
    entity = given.get("entity_id")
    return Token(SecretStr(text.strip()), entity if isinstance(entity, str) else "")
