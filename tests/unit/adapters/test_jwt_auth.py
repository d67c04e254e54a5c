"""Tokens of callers: what lets them in, what does not, and that no odd token breaks the service."""

import base64
import logging
import time
from collections.abc import Callable

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters import jwt_auth
from edgeagents.adapters.jwt_auth import (
    OPENBAO_ISSUER,
    IssuerKeys,
    JwtCheck,
    RefusedError,
    parse_key,
    unverified,
    verify,
)
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import UnavailableError, UpstreamError
from tests.tokens import ISSUER, KEYS, SECRET, ProxyAuth, bare_ed25519, by_hand, public, signed, unsigned_claims

LEEWAY_S = 5.0
FITTING = [
    *(("rsa", algorithm) for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("p256", "ES256"), ("p384", "ES384"), ("p521", "ES512"), ("ed25519", "EdDSA"),
    *(("hmac", algorithm) for algorithm in ("HS256", "HS384", "HS512")),
]  # fmt: skip


def check_with(key: str, token: str) -> None:
    verify(token, parse_key(key), unverified(token), LEEWAY_S)


@pytest.mark.parametrize(("kind", "algorithm"), FITTING)
def test_a_token_signed_with_the_issuers_key_counts(kind: str, algorithm: str) -> None:
    check_with(public(kind), signed(kind, algorithm))


@pytest.mark.parametrize(
    ("kind", "algorithm", "key_kind"),
    [(*pair, other) for pair in FITTING for other in KEYS if other != pair[0]],
)
def test_an_algorithm_that_does_not_fit_the_key_is_refused(kind: str, algorithm: str, key_kind: str) -> None:
    with pytest.raises(RefusedError) as raised:
        check_with(public(key_kind), signed(kind, algorithm))
    assert raised.value.reason == "wrong algorithm"


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_a_public_key_is_no_hmac_secret(kind: str) -> None:
    for text in (public(kind), public(kind).strip(), public(kind) + "\n"):
        forged = by_hand({"alg": "HS256", "typ": "JWT"}, unsigned_claims(), secret=text.encode())
        with pytest.raises(RefusedError):
            check_with(public(kind), forged)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "HS256 ", "hs256", "ES256K", "", "A" * 1000])
async def test_none_and_made_up_algorithms_never_count(algorithm: str) -> None:
    check, _ = checking({ISSUER: public("p256")})
    for token in (
        by_hand({"alg": algorithm}, unsigned_claims()),
        by_hand({"alg": algorithm}, unsigned_claims(), b"x" * 64),
    ):
        with pytest.raises(RefusedError):
            await check.check(f"Bearer {token}")


def test_a_secret_in_base64_is_decoded_as_edgex_does() -> None:
    in_base64 = base64.b64encode(SECRET.encode()).decode()
    check_with(in_base64, signed("hmac", "HS256"))
    check_with(f"{in_base64[:20]}\n{in_base64[20:]}\n", signed("hmac", "HS256"))


def test_the_bare_ed25519_key_of_edgexs_go_code_counts() -> None:
    check_with(bare_ed25519(), signed("ed25519", "EdDSA"))


@pytest.mark.parametrize("secret", ["c2hvcnQ=", "short", base64.b64encode(b"x" * 31).decode()])
def test_a_short_secret_is_no_key(secret: str) -> None:
    raw = base64.b64decode(secret) if secret != "short" else b"short"
    with pytest.raises(RefusedError, match="too weak"):
        check_with(secret, by_hand({"alg": "HS256"}, unsigned_claims(), secret=raw))


def pem(key: dsa.DSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    "text",
    ["-----BEGIN PUBLIC KEY-----\nnot base64\n-----END PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----",
     "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----",
     pem(dsa.generate_private_key(1024).public_key()), pem(ec.generate_private_key(ec.SECP256K1()).public_key())],
)  # fmt: skip
def test_a_pem_that_verifies_nothing_is_told(text: str) -> None:
    with pytest.raises(UpstreamError):
        parse_key(text)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"nbf": int(time.time()) + 3600}, "early"),
        ({"iat": int(time.time()) + 3600}, "early"),
        ({"exp": None}, "no expiry"),
        ({"iss": None}, "no issuer"),
        ({"iss": ""}, "no issuer"),
    ],
)
async def test_a_claim_that_does_not_hold_is_refused(claims: dict[str, object], reason: str) -> None:
    check, _ = checking({ISSUER: public("p256")})
    with pytest.raises(RefusedError) as raised:
        await check.check(f"Bearer {signed(**claims)}")
    assert raised.value.reason == reason
    assert check.refused[reason] == 1


async def test_clocks_may_differ_by_the_leeway() -> None:
    check, _ = checking({ISSUER: public("p256")})
    now = int(time.time())
    await check.check(f"Bearer {signed(exp=now - 2)}")
    await check.check(f"Bearer {signed(nbf=now + 3, iat=now + 3)}")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dTpw", "Token x", "Bearer a.b.c", "Bearer ..", "Bearer x", "Bearer \0"]
)
async def test_no_token_or_something_else_is_refused(header: str) -> None:
    check, proxy = checking({})
    with pytest.raises(RefusedError):
        await check.check(header)
    assert proxy.asked == []


ODD = {
    "deep payload": by_hand({"alg": "ES256"}, b"[" * 40_000),
    "deep header": by_hand(b"[" * 40_000, {}),
    "payload is a list": by_hand({"alg": "ES256"}, []),
    "payload is a text": by_hand({"alg": "ES256"}, "x"),
    "header is a number": by_hand(7, {}),
    "endless exp": by_hand({"alg": "ES256"}, b'{"iss":"x","exp":1e999}'),
    "long exp": by_hand({"alg": "ES256"}, b'{"iss":"x","exp":' + b"9" * 10_000 + b"}"),
    "exp is a list": by_hand({"alg": "ES256"}, {"iss": "x", "exp": []}),
    "exp is nan": by_hand({"alg": "ES256"}, b'{"iss":"x","exp":NaN}'),
    "iss is a list": by_hand({"alg": "ES256"}, unsigned_claims(iss=["x"])),
    "alg is a list": by_hand({"alg": ["ES256"]}, unsigned_claims()),
    "alg is missing": by_hand({}, unsigned_claims()),
    "not UTF-8": by_hand(b"\xff\xfe", b"\xff"),
    "detached": by_hand({"alg": "ES256", "b64": False, "crit": ["b64"]}, unsigned_claims()),
    "unknown crit": by_hand({"alg": "ES256", "crit": ["x"], "x": 1}, unsigned_claims(), b"x" * 64),
}


@pytest.mark.parametrize("token", ODD.values(), ids=ODD.keys())
async def test_an_odd_token_is_refused_and_breaks_nothing(token: str) -> None:
    check, _ = checking({ISSUER: public("p256"), "x": public("p256")})
    with pytest.raises(RefusedError):
        await check.check(f"Bearer {token}")


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda data: by_hand({"alg": "ES256"}, data))))
async def test_no_text_is_a_token_by_chance(text: str) -> None:
    check, _ = checking({ISSUER: public("p256")})
    with pytest.raises(RefusedError):
        await check.check(f"Bearer {text}")


@given(st.integers(min_value=0), st.integers(0, 255))
def test_a_token_changed_anywhere_does_not_count(position: int, other: int) -> None:
    token = TOKEN
    at = position % len(token)
    changed = token[:at] + chr(other) + token[at + 1 :]
    header, payload, signature = token.split(".")
    # The last character of a part holds bits that belong to no byte.
    if [_bytes(part) for part in changed.split(".")] == [_bytes(part) for part in (header, payload, signature)]:
        return
    with pytest.raises(RefusedError):
        check_with(KEY, changed)


KEY, TOKEN = public("p256"), signed()


def _bytes(part: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return None


# --- keys of issuers ----------------------------------------------------------------------------------


def checking(
    keys: dict[str, str], is_active: Callable[[str], bool] = lambda token: False
) -> tuple[JwtCheck, ProxyAuth]:
    proxy = ProxyAuth()
    proxy.keys.update(keys)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(proxy.app))

    async def ask(token: str) -> bool:
        return is_active(token)

    return JwtCheck(ask, IssuerKeys(Rest("security-proxy-auth", FixedAddress("http://proxy"), http)), LEEWAY_S), proxy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the keys: set its only item."""
    now = [1000.0]
    monkeypatch.setattr(jwt_auth, "monotonic", lambda: now[0])
    return now


async def test_a_key_is_fetched_once_for_each_issuer(clock: list[float]) -> None:
    check, proxy = checking({ISSUER: public("p256"), "other": public("rsa")})
    for _ in range(3):
        await check.check(f"Bearer {signed()}")
        await check.check(f"bearer  {signed('rsa', 'PS256', iss='other')}")
    assert proxy.asked == [ISSUER, "other"]


async def test_a_changed_key_is_noticed_when_the_old_one_does_not_fit(clock: list[float]) -> None:
    check, proxy = checking({ISSUER: public("p256")})
    await check.check(f"Bearer {signed()}")
    proxy.keys[ISSUER] = public("rsa")
    clock[0] += 11
    await check.check(f"Bearer {signed('rsa', 'RS256')}")
    with pytest.raises(RefusedError):
        await check.check(f"Bearer {signed()}")
    assert len(proxy.asked) == 2


async def test_wrong_signatures_do_not_make_us_ask_again_and_again(clock: list[float]) -> None:
    check, proxy = checking({ISSUER: public("p256")})
    forged = signed()[:-8] + "AAAAAAAA"
    for _ in range(20):
        with pytest.raises(RefusedError):
            await check.check(f"Bearer {forged}")
    assert len(proxy.asked) == 1


async def test_an_unknown_issuer_is_refused_and_asked_for_again_after_a_while(clock: list[float]) -> None:
    check, proxy = checking({})
    for _ in range(3):
        with pytest.raises(RefusedError, match="no key of the token's issuer"):
            await check.check(f"Bearer {signed()}")
    assert len(proxy.asked) == 1
    proxy.keys[ISSUER] = public("p256")
    clock[0] += 11
    await check.check(f"Bearer {signed()}")


async def test_an_old_key_is_fetched_again_and_a_withdrawn_one_ends(clock: list[float]) -> None:
    check, proxy = checking({ISSUER: public("p256")})
    await check.check(f"Bearer {signed()}")
    del proxy.keys[ISSUER]
    clock[0] += 301
    with pytest.raises(RefusedError):
        await check.check(f"Bearer {signed()}")


async def test_a_known_key_goes_on_while_security_proxy_auth_is_away(clock: list[float]) -> None:
    check, proxy = checking({ISSUER: public("p256")})
    proxy.status = 500
    with pytest.raises(UnavailableError):
        await check.check(f"Bearer {signed()}")
    proxy.status = 200
    await check.check(f"Bearer {signed()}")
    proxy.status = 503
    clock[0] += 301
    await check.check(f"Bearer {signed()}")


async def test_made_up_issuers_do_not_fill_the_memory_nor_drive_out_known_ones(clock: list[float]) -> None:
    check, proxy = checking({ISSUER: public("p256")})
    await check.check(f"Bearer {signed()}")
    for number in range(200):
        with pytest.raises(RefusedError):
            await check.check(f"Bearer {by_hand({'alg': 'ES256'}, unsigned_claims(iss=f'made up {number}'))}")
    await check.check(f"Bearer {signed()}")
    assert proxy.asked.count(ISSUER) == 1
    assert len(check._keys._known) <= 64


async def test_a_token_of_openbao_is_shown_to_openbao_alone() -> None:
    shown: list[str] = []

    def is_active(token: str) -> bool:
        shown.append(token)
        return len(shown) == 1

    check, proxy = checking({OPENBAO_ISSUER: public("p256")}, is_active)
    token = signed(iss=OPENBAO_ISSUER)
    await check.check(f"Bearer {token}")
    with pytest.raises(RefusedError):
        await check.check(f"Bearer {token}")
    with pytest.raises(RefusedError):
        await check.check(f"Bearer {signed(iss=OPENBAO_ISSUER, exp=1)}")
    assert (shown, proxy.asked) == ([token, token], [])


# --- the door -----------------------------------------------------------------------------------------


def door() -> httpx.AsyncClient:
    check, _ = checking({ISSUER: public("p256")})
    app = make_app(WebContext("app-x", "4.0.0", dict, None, check=check.check))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app-x")


async def test_ping_is_open_and_nothing_else_is() -> None:
    async with door() as http:
        assert (await http.get("/api/v3/ping")).status_code == 200
        for method, path in [
            ("GET", "/api/v3/version"), ("GET", "/api/v3/config"), ("POST", "/api/v3/secret"), ("GET", "/openapi.json"),
            ("GET", "/nothing/here"), ("GET", "/api/v3/ping/"), ("GET", "/api/v3/ping/../config"),
            ("GET", "//api/v3/ping"),
        ]:  # fmt: skip
            answer = await http.request(method, path)
            assert answer.status_code == 401, path
            assert answer.json() == {"apiVersion": "v3", "message": answer.json()["message"], "statusCode": 401}
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-correlation-id"]


async def test_a_good_token_opens() -> None:
    async with door() as http:
        answer = await http.get("/api/v3/version", headers={"Authorization": f"Bearer {signed()}"})
        assert answer.status_code == 200


async def test_a_refused_token_stands_neither_in_the_answer_nor_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with door() as http:
        for token in (signed(exp=1), signed()[:-8] + "AAAAAAAA", "g4rbage.g4rbage.g4rbage"):
            answer = await http.get("/api/v3/version", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 401
            for part in token.split("."):
                assert part not in answer.text
                assert part not in caplog.text


async def test_each_reason_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    check, _ = checking({})
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        with pytest.raises(RefusedError):
            await check.check("")
    assert len(caplog.records) == 1
    assert check.refused == {"missing": 5}
