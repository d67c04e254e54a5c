"""A service's secret store in secure mode: OpenBao over HTTP, with the service's own token.

Secrets are read once and kept; the token is renewed at half of its life; a token that OpenBao refuses is read
anew from its file. While OpenBao is sealed or away callers get `UnavailableError`; that is logged once, and
its end once. No secret and no token ever stands in a message of ours: OpenBao's own texts are left out.

Source: edgex-wire.md section 4, "Secure mode"; OpenBao's HTTP API: KV version 1, identity tokens, token auth.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import jwt
from pydantic import SecretStr

from edgeagents.adapters.secret_settings import SecretStoreSettings, Token, read_token
from edgeagents.errors import (
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    TheirError,
    UnavailableError,
    UpstreamError,
)

log = logging.getLogger(__name__)

DEADLINE_S: Final = 3.0  # shorter than EdgeX's request timeout, so that a caller learns the reason
SETUP_DEADLINE_S: Final = 15.0  # secretstore-setup makes a root token before it writes ours
RETRY_S: Final = 5.0
_LOOKUP: Final = "/v1/auth/token/lookup-self"
_SEALED: Final = (429, 472, 473, 503)


@dataclass(frozen=True, slots=True)
class _OwnJwt:
    text: SecretStr
    renew_at: float  # of the monotonic clock: the issuer's clock may differ from ours
    dead_at: float


class SecretStore:
    """OpenBao as one service sees it; `connect` first, then have `run` running."""

    def __init__(self, settings: SecretStoreSettings) -> None:
        """Prepare; nothing is read or asked yet.

        Raises:
            ConfigurationError: the certificate authority's file cannot be read.
        """
        self.settings = settings
        self._http = httpx.AsyncClient(base_url=settings.url, verify=_verify(settings), trust_env=False)
        self._token: Token | None = None
        self._attention = asyncio.Event()  # the token may be another, or a worse one, than `run` thinks
        self._is_down = True  # until it answers; what it is waited for at the start is told by whoever waits
        self._refused: set[str] = set()  # what was told to be refused
        self._cache: dict[str, dict[str, str]] = {}
        self._jwt: _OwnJwt | None = None
        self._jwt_lock = asyncio.Lock()

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    # --- the token -------------------------------------------------------------------------------

    async def connect(self) -> float | None:
        """Read the token, see that OpenBao takes it, renew it in good time; to be tried again until it succeeds.

        Returns:
            Seconds until this is due again; None: never.

        Raises:
            UnavailableError: no token file yet, OpenBao away, sealed, or it refuses the token.
        """
        try:
            data = await self._call("GET", _LOOKUP, what="our token")
        except _RefusedError:
            await self._ask_for_new_token()
            data = await self._call("GET", _LOOKUP, what="our token")
        life = _Life.of(_member(data, "data"))
        if life is None:
            raise UpstreamError(f"{self._name} says nothing about our token: is this OpenBao?")
        if not life.is_due:
            return life.due_in_s
        answer = await self._call("POST", "/v1/auth/token/renew-self", body={}, what="renewal of our token")
        lease_s = _seconds(_member(answer, "auth"), "lease_duration")
        log.debug("token of the secret store renewed for %.0f s", lease_s)
        return max(lease_s / 2, 1.0)

    async def run(self, due_in_s: float | None) -> None:
        """Keep the token alive, for ever; a new token in the file takes the place of one that is refused.

        Args:
            due_in_s: what `connect` returned.
        """
        while True:
            try:
                async with asyncio.timeout(due_in_s):
                    await self._attention.wait()
            except TimeoutError:
                log.debug("the token of the secret store is due")
            try:
                due_in_s = await self.connect()
            except TheirError as error:
                self._went_down(error)
                await asyncio.sleep(RETRY_S)
                due_in_s = 0
            self._attention.clear()

    async def _current(self) -> Token:
        if self._token is None:
            self._token = await asyncio.to_thread(read_token, self.settings.token_file)
        return self._token

    async def _reread(self) -> Token:
        """Return the token file's token, which takes the place of the one before."""
        found = await asyncio.to_thread(read_token, self.settings.token_file)
        if self._token is None or found.text != self._token.text:
            self._jwt = None
            self._refused.clear()
            self._attention.set()
            log.info("token of the secret store replaced from %s", self.settings.token_file)
        self._token = found
        return found

    async def _ask_for_new_token(self) -> None:
        """Have secretstore-setup write a new token file, and take it."""
        ended = await self._current()
        entity = ended.entity_id
        where = f"{self.settings.setup_url}/api/v3/token/entityId/{quote(entity, safe='')}"
        refused = f"{self._name} refuses the token of {self.settings.token_file}"
        if not entity:
            raise UnavailableError(f"{refused}: run security-secretstore-setup again")
        try:
            async with asyncio.timeout(SETUP_DEADLINE_S):
                answer = await self._http.put(where, timeout=SETUP_DEADLINE_S)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise UnavailableError(
                f"{refused}, and security-secretstore-setup at {self.settings.setup_url} cannot be asked for a new "
                f"one: {_text(error)}: is it up?"
            ) from error
        if not answer.is_success or (await self._reread()).text == ended.text:
            raise UnavailableError(f"{refused}, and security-secretstore-setup gave no new one ({answer.status_code})")

    # --- secrets ---------------------------------------------------------------------------------

    async def secret(self, name: str) -> dict[str, str]:
        """Return the data of a secret of this service.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: OpenBao is away or sealed, and the secret was not read before.
        """
        cache = self._cache  # a secret stored meanwhile makes another one
        if name not in cache:
            data = _member(await self._call("GET", self._secret_path(name), what=f"secret {name!r}"), "data")
            if not data or not all(isinstance(value, str) for value in data.values()):
                raise UpstreamError(f"{self._name}: secret {name!r} is not made of texts: store it again")
            cache[name] = dict(data)
        return dict(cache[name])

    async def store(self, name: str, data: Mapping[str, str]) -> None:
        """Store a secret of this service; what it held before is gone.

        Raises:
            InvalidInputError: a name that is no path, or no data.
            UnavailableError: OpenBao is away or sealed.
        """
        if not data or not all(key.strip() for key in data):
            raise InvalidInputError(f"secret {name!r}: every key needs a name, and there must be one")
        await self._call("POST", self._secret_path(name), body=dict(data), what=f"secret {name!r}")
        self._cache = {}

    def _secret_path(self, name: str) -> str:
        parts = name.strip().split("/")
        if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
            raise InvalidInputError(f"secret name {name[:100]!r}: write a name, or several joined by /")
        return "/".join([self.settings.secrets_path, *(quote(part, safe="") for part in parts)])

    # --- tokens for and of others ----------------------------------------------------------------

    async def bearer(self) -> SecretStr:
        """Return the JWT that says who we are; the same one until shortly before it expires.

        Raises:
            UnavailableError: OpenBao gives none, and the last one has expired.
        """
        async with self._jwt_lock:
            known, now = self._jwt, time.monotonic()
            if known is not None and now < known.renew_at:
                return known.text
            try:
                self._jwt = await self._fetch_jwt()
            except TheirError:
                if known is not None and now < known.dead_at:
                    return known.text
                raise
            return self._jwt.text

    def forget(self, used: SecretStr) -> None:
        """Fetch a new JWT next time: this one was refused."""
        if self._jwt is not None and self._jwt.text == used:
            self._jwt = None

    async def _fetch_jwt(self) -> _OwnJwt:
        began = time.monotonic()
        what = f"JWT of {self.settings.identity or self.settings.service_key!r}"
        data = _member(await self._call("GET", self.settings.jwt_path, what=what), "data")
        text = data.get("token")
        try:
            claims = jwt.decode(str(text), options={"verify_signature": False})
            life_s = float(claims["exp"]) - float(claims["iat"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UpstreamError(f"{self._name}: {what}: not a JWT with iat and exp") from error
        return _OwnJwt(SecretStr(str(text)), began + 0.9 * life_s, began + life_s)

    async def is_active(self, token: str) -> bool:
        """Say whether OpenBao issued this JWT and still stands by it.

        Raises:
            UnavailableError: OpenBao is away or sealed.
        """
        answer = await self._call("POST", "/v1/identity/oidc/introspect", body={"token": token}, what="a caller's JWT")
        return isinstance(answer, dict) and answer.get("active") is True

    # --- HTTP ------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"OpenBao at {self.settings.url}"

    async def _call(self, method: str, path: str, *, body: Any = None, what: str) -> Any:
        """Return the decoded answer; a token that is refused is read anew once.

        Raises:
            UnavailableError: away, sealed, or it refuses our token (then `_RefusedError`).
            NotFoundError: nothing is there.
            UpstreamError: any other answer.
        """
        try:
            used = await self._current()
            response = await self._send(method, path, body, used)
            if response.status_code == 403 and (now := await self._reread()).text != used.text:
                response = await self._send(method, path, body, now)
        except UnavailableError as error:
            self._went_down(error)
            raise
        if response.status_code in _SEALED:
            sealed = UnavailableError(f"{self._name} is sealed or on standby ({response.status_code}): unseal it")
            self._went_down(sealed)
            raise sealed
        about = f"{self._name}: {what}"
        if response.status_code == 403:
            raise self._refusal(about)
        self._came_back()
        if response.status_code == 404:
            raise NotFoundError(f"{about}: there is none")
        if not response.is_success:
            raise UpstreamError(f"{about}: status {response.status_code}")
        try:
            return response.json() if response.content else None
        except (ValueError, RecursionError):  # the cause would quote the answer
            raise UpstreamError(f"{about}: the answer is not JSON: is this OpenBao?") from None

    async def _send(self, method: str, path: str, body: Any, token: Token) -> httpx.Response:
        headers = {"X-Vault-Token": token.text.get_secret_value(), "X-Vault-Request": "true"}
        if self.settings.namespace:
            headers["X-Vault-Namespace"] = self.settings.namespace
        extensions = {"sni_hostname": self.settings.server_name} if self.settings.server_name else {}
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._http.request(
                    method, path, headers=headers, json=body, extensions=extensions, timeout=DEADLINE_S
                )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise UnavailableError(f"{self._name} does not answer: {_text(error)}: is it up?") from error

    def _refusal(self, about: str) -> "_RefusedError":
        """Return the error for a 403; wakes `run`, which can ask for another token."""
        error = _RefusedError(
            f"{about}: permission denied: is the token of {self.settings.token_file} current, "
            f"and its policy the one secretstore-setup makes for {self.settings.service_key}?"
        )
        if about not in self._refused:
            self._refused.add(about)
            log.error("secret store: %s", error)
        self._attention.set()
        return error

    def _went_down(self, error: TheirError) -> None:
        if not self._is_down:
            log.error("secret store: %s; trying on", error)
        self._is_down = True

    def _came_back(self) -> None:
        if self._is_down:
            log.info("secret store: %s answers", self._name)
        self._is_down = False


class _RefusedError(UnavailableError):
    """OpenBao does not let us: another token may help."""


@dataclass(frozen=True, slots=True)
class _Life:
    """Whether a token is to be renewed now, or when to look again."""

    is_due: bool
    due_in_s: float | None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "_Life | None":
        """Read what OpenBao says about a token; None when it says nothing."""
        ttl_s, whole_s = _seconds(data, "ttl"), _seconds(data, "period") or _seconds(data, "creation_ttl")
        if "ttl" not in data:
            return None
        if whole_s <= 0:  # a root token never ends
            return cls(False, None)
        if data.get("renewable") is not True:
            log.warning("the token of the secret store cannot be renewed: it ends in %.0f s", ttl_s)
            return cls(False, ttl_s + 1.0)
        return cls(ttl_s <= whole_s / 2, max(ttl_s - whole_s / 2, 1.0))


def _seconds(data: Mapping[str, Any], key: str) -> float:
    value = data.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _member(answer: Any, key: str) -> dict[str, Any]:
    found = answer.get(key) if isinstance(answer, dict) else None
    return found if isinstance(found, dict) else {}


def _verify(settings: SecretStoreSettings) -> ssl.SSLContext | bool:
    if not settings.root_ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=settings.root_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"SECRETSTORE_ROOTCACERTPATH={settings.root_ca_file}: {error}: is it a certificate in PEM?"
        ) from error


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
