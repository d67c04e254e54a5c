"""JWTs as an outside issuer makes them, good and forged, and a stand-in of security-proxy-auth that holds its keys."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from fastapi.responses import JSONResponse

ISSUER = "https://login.example/realms/plant a"
SECRET = "a secret that is long enough for every HMAC: sixty-four bytes and more"

KEYS: dict[str, Any] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "hmac": SECRET,
}


def public(kind: str) -> str:
    """Return what an owner posts to security-proxy-auth for a key."""
    if kind == "hmac":
        return SECRET
    made: bytes = KEYS[kind].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


def bare_ed25519() -> str:
    """Return the key as EdgeX's Go code wants it: 32 bare bytes in a PEM."""
    raw = KEYS["ed25519"].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(raw).decode()}\n-----END PUBLIC KEY-----\n"


def signed(kind: str = "p256", algorithm: str = "ES256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token of `ISSUER`, good for an hour unless claims say otherwise; a claim of None is left out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "iat": now, "exp": now + 3600, "sub": "operator"} | claims
    kept = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(kept, KEYS[kind], algorithm=algorithm, headers=headers)


def by_hand(header: Any, payload: Any, signature: bytes = b"", secret: bytes | None = None) -> str:
    """Return a token of any parts; with a secret it is signed with HMAC, which a library may refuse to do."""
    parts = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in (header, payload)]
    text = b".".join(_base64(part) for part in parts)
    if secret is not None:
        signature = hmac.new(secret, text, hashlib.sha256).digest()
    return b".".join([text, _base64(signature)]).decode()


def unsigned_claims(**claims: Any) -> dict[str, Any]:
    """Return claims that would be good if somebody had signed them."""
    return {"iss": ISSUER, "exp": int(time.time()) + 3600} | claims


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class ProxyAuth:
    """security-proxy-auth as far as it hands out keys."""

    def __init__(self) -> None:
        """Know no issuer."""
        self.keys: dict[str, Any] = {}
        self.asked: list[str] = []
        self.status = 200
        self.app = FastAPI()

        @self.app.get("/api/v3/key/verification/issuer/{issuer:path}")
        async def key(issuer: str) -> JSONResponse:
            self.asked.append(issuer)
            if self.status != 200:
                return JSONResponse({"apiVersion": "v3", "message": "broken", "statusCode": self.status}, self.status)
            if issuer not in self.keys:
                return JSONResponse({"apiVersion": "v3", "message": "key not found", "statusCode": 404}, 404)
            data = {"issuer": issuer, "type": "verification", "key": self.keys[issuer]}
            return JSONResponse({"apiVersion": "v3", "statusCode": 200, "keyData": data})
