"""Who may call us in secure mode: each request but ping carries a JWT that OpenBao or security-proxy-auth vouches for.

OpenBao's own tokens are shown to OpenBao; those of other issuers are verified here with the issuer's key. The
algorithm must be one that fits the kind of key, so a public key is never taken for an HMAC secret, and `none`
is no algorithm. Unlike EdgeX's Go services an expired token is refused. What a token allows is not asked: EdgeX
has no roles. No token ever stands in a message or in the log.

Source: edgex-wire.md section 4, "Secure mode"; RFC 7515, 7518, 7519, 8725.
"""

import base64
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edgeagents.adapters.rest import Rest, segment
from edgeagents.errors import (
    NotFoundError,
    UnauthorisedError,
    UnavailableError,
    UpstreamError,
)

log = logging.getLogger(__name__)

OPENBAO_ISSUER: Final = "/v1/identity/oidc"
_HMAC: Final = ("HS256", "HS384", "HS512")
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_ALGORITHMS: Final = (*_HMAC, *_RSA, *_CURVES.values(), "EdDSA")
_ED25519_SIZE: Final = 32
_KEY_FRESH_S: Final = 10.0  # a key that does not fit is fetched again, at most this often
_KEY_KEPT_S: Final = 300.0
_KEYS: Final = 64
# What PyJWT lets through of the many ways in which a token can be odd: huge numbers, deep nesting.
_ODD: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)

IsActive = Callable[[str], Awaitable[bool]]


class RefusedError(UnauthorisedError):
    """The caller's token does not count; `reason` is a short stable word for counters."""

    def __init__(self, text: str, reason: str) -> None:
        """Say why, without the token."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Key:
    """An issuer's verification key and the algorithms it is good for."""

    material: Any
    algorithms: tuple[str, ...]


def parse_key(text: str) -> Key:
    """Return the key that security-proxy-auth holds as text: a public key in PEM, or an HMAC secret in base64 or plain.

    Raises:
        UpstreamError: a PEM that is no public key for a JWT.
    """
    if "-----BEGIN" not in text:
        return Key(_hmac_secret(text), _HMAC)
    try:
        key = load_pem_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        return _go_ed25519(text)
    match key:
        case rsa.RSAPublicKey():
            return Key(key, _RSA)
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return Key(key, (_CURVES[key.curve.name],))
        case ed25519.Ed25519PublicKey():
            return Key(key, ("EdDSA",))
    raise UpstreamError(f"a key of type {type(key).__name__} verifies no JWT: use RSA, P-256, P-384, P-521 or Ed25519")


def _hmac_secret(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return text.encode()


def _go_ed25519(text: str) -> Key:
    """EdgeX's Go code expects the 32 bare bytes of an Ed25519 key where PEM has a whole structure."""
    body = "".join(line for line in text.strip().splitlines() if not line.startswith("-----"))
    try:
        raw = base64.b64decode(body, validate=True)
    except ValueError:
        raw = b""
    if "-----BEGIN PUBLIC KEY-----" not in text or len(raw) != _ED25519_SIZE:
        raise UpstreamError("not a public key in PEM: post the public half to security-proxy-auth")
    return Key(ed25519.Ed25519PublicKey.from_public_bytes(raw), ("EdDSA",))


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of itself, before anybody has vouched for it."""

    algorithm: str
    issuer: str
    expires_s: float


def unverified(token: str) -> Claims:
    """Return what a token claims.

    Raises:
        RefusedError: it is no JWT, or lacks a claim.
    """
    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
        algorithm, issuer, expires_s = (
            whole["header"].get("alg"), whole["payload"].get("iss"), float(whole["payload"].get("exp", "nan")),
        )  # fmt: skip
    except _ODD as error:
        raise RefusedError("the token is not a JWT", "malformed") from error
    if not isinstance(issuer, str) or not issuer:
        raise RefusedError("the token names no issuer (iss)", "no issuer")
    if not isinstance(algorithm, str) or not algorithm:
        raise RefusedError("the token names no algorithm (alg)", "no algorithm")
    if math.isnan(expires_s):
        raise RefusedError("the token never expires: it needs exp", "no expiry")
    return Claims(algorithm, issuer, expires_s)


def verify(token: str, key: Key, claims: Claims, leeway_s: float) -> None:
    """Return when the token is signed with this key and holds now.

    Raises:
        RefusedError: why not.
    """
    if claims.algorithm not in key.algorithms:
        raise RefusedError(
            f"the token's algorithm {claims.algorithm[:20]!r} does not fit the key of its issuer "
            f"({', '.join(key.algorithms)} would)", "wrong algorithm",
        )  # fmt: skip
    options: Any = {"require": ["exp", "iss"], "verify_aud": False, "enforce_minimum_key_length": True}
    try:
        jwt.decode(
            token, key.material, algorithms=[claims.algorithm], issuer=claims.issuer, leeway=leeway_s, options=options
        )
    except jwt.ExpiredSignatureError as error:
        raise RefusedError("the token has expired: get a new one", "expired") from error
    except jwt.ImmatureSignatureError as error:
        raise RefusedError("the token is not valid yet: do the clocks of issuer and service agree?", "early") from error
    except jwt.InvalidSignatureError as error:
        raise RefusedError("the token's signature is wrong", "wrong signature") from error
    except jwt.InvalidKeyError as error:
        raise RefusedError("the issuer's key is too weak or unfit: post a longer one", "weak key") from error
    except _ODD as error:
        raise RefusedError(f"the token is not valid: {type(error).__name__}", "invalid") from error


@dataclass(frozen=True, slots=True)
class _Known:
    key: Key | None  # None: there was none
    at: float


class IssuerKeys:
    """The keys that security-proxy-auth holds, each fetched once and again when it is old or does not fit."""

    def __init__(self, proxy_auth: Rest) -> None:
        """Use security-proxy-auth's REST interface."""
        self._rest = proxy_auth
        self._known: dict[str, _Known] = {}

    async def get(self, issuer: str, *, fresh_s: float = _KEY_KEPT_S) -> Key:
        """Return an issuer's key, not older than `fresh_s` unless nobody can be asked.

        Raises:
            RefusedError: nobody knows this issuer.
            UnavailableError: security-proxy-auth is away, or holds no usable key, and there is none from before.
        """
        known, now = self._known.get(issuer), monotonic()
        limit = fresh_s if known is None or known.key is not None else _KEY_FRESH_S
        if known is None or now - known.at >= limit:
            try:
                known = _Known(await self._fetch(issuer), now)
            except NotFoundError:
                known = _Known(None, now)
            except (UnavailableError, UpstreamError) as error:
                if known is None or known.key is None:
                    raise UnavailableError(f"the key of the token's issuer cannot be had: {error}") from error
            self._keep(issuer, known)
        if known.key is None:
            raise RefusedError("security-proxy-auth has no key of the token's issuer", "unknown issuer")
        return known.key

    async def _fetch(self, issuer: str) -> Key:
        answer = await self._rest.call("GET", f"/api/v3/key/verification/issuer/{segment(issuer)}", timeout_s=3.0)
        data = answer.get("keyData") if isinstance(answer, dict) else None
        text = data.get("key") if isinstance(data, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise UpstreamError(f"{self._rest.name}: an answer without keyData.key")
        return parse_key(text)

    def _keep(self, issuer: str, known: _Known) -> None:
        self._known.pop(issuer, None)
        while len(self._known) >= _KEYS:  # made-up issuers must not fill the memory
            made_up = next((name for name, entry in self._known.items() if entry.key is None), None)
            del self._known[made_up if made_up is not None else next(iter(self._known))]
        self._known[issuer] = known


class JwtCheck:
    """Checks `Authorization` headers; `refused` counts what was turned away, by reason."""

    def __init__(self, is_active: IsActive, keys: IssuerKeys, leeway_s: float) -> None:
        """Ask OpenBao by `is_active`, and others' keys of `keys`."""
        self._is_active = is_active
        self._keys = keys
        self._leeway_s = leeway_s
        self.refused: Counter[str] = Counter()

    async def check(self, authorization: str) -> None:
        """Return when the header of a request lets it in.

        Raises:
            RefusedError: it does not.
            UnavailableError: whoever vouches for the token is away.
        """
        try:
            await self._check(authorization)
        except RefusedError as error:
            self.refused[error.reason] += 1
            told = log.warning if self.refused[error.reason] == 1 else log.debug
            told("a call was refused: %s (further ones are only counted)", error)
            raise

    async def _check(self, authorization: str) -> None:
        scheme, _, token = authorization.strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise RefusedError("a token is needed: send Authorization: Bearer <JWT>", "missing")
        claims = unverified(token)
        # OpenBao itself lets a token live a minute longer than it says.
        if claims.expires_s + self._leeway_s <= time.time():
            raise RefusedError("the token has expired: get a new one", "expired")
        if claims.issuer != OPENBAO_ISSUER:
            await self._verify(token, claims)
        elif not await self._is_active(token):
            raise RefusedError("OpenBao does not stand by the token", "inactive")

    async def _verify(self, token: str, claims: Claims) -> None:
        if claims.algorithm not in _ALGORITHMS:
            raise RefusedError(
                f"the token's algorithm {claims.algorithm[:20]!r} is none that counts", "wrong algorithm"
            )
        try:
            verify(token, await self._keys.get(claims.issuer), claims, self._leeway_s)
        except RefusedError as error:
            if error.reason not in ("wrong signature", "wrong algorithm", "weak key"):
                raise
            # The issuer may have another key by now.
            verify(token, await self._keys.get(claims.issuer, fresh_s=_KEY_FRESH_S), claims, self._leeway_s)
