"""What a service has of security: its secrets, its own token, and who may call it; one object for both modes.

In insecure mode secrets lie in keeper, nobody is asked for a token and none is sent. In secure mode all three
come from OpenBao. The bootstrap opens it first of all: keeper itself demands a token.

Source: edgex-wire.md sections 3.4 and 4.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from edgeagents.adapters.auth import Check
from edgeagents.adapters.config import private_key
from edgeagents.adapters.keeper import KeeperClient
from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.metrics import Metrics
from edgeagents.adapters.options import Options
from edgeagents.adapters.rest import Rest, Tokens
from edgeagents.adapters.secret_settings import JwtSettings
from edgeagents.adapters.startup import Budget
from edgeagents.adapters.web import secret_keys
from edgeagents.errors import NotAllowedError, NotFoundError

if TYPE_CHECKING:
    from edgeagents.adapters.secret_store import SecretStore

log = logging.getLogger(__name__)


class Secrets(Protocol):
    """The secrets of one service."""

    async def secret(self, name: str) -> dict[str, str]:
        """Return the data of a secret.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the store is away or sealed.
        """

    async def store(self, name: str, data: dict[str, str]) -> None:
        """Store a secret.

        Raises:
            InvalidInputError: a name or key that cannot be.
            UnavailableError: the store is away or sealed.
        """


class InsecureSecrets:
    """Secrets in the configuration, in clear: EdgeX's `Writable/InsecureSecrets`."""

    def __init__(self, config: LiveConfig, keeper: KeeperClient | None) -> None:
        """Read them from the configuration, store them in keeper if there is one."""
        self._config = config
        self._keeper = keeper

    async def secret(self, name: str) -> dict[str, str]:
        """Return the data of a secret.

        Raises:
            NotFoundError: there is none of that name.
        """
        data = self._config.secret(name)
        if not data:
            raise NotFoundError(f"no secret {name!r} in Writable/InsecureSecrets of {self._config.key}")
        return data

    async def store(self, name: str, data: dict[str, str]) -> None:
        """Write a secret to keeper.

        Raises:
            NotAllowedError: there is no keeper.
            UnavailableError: keeper did not answer.
        """
        if self._keeper is None:
            raise NotAllowedError("secrets cannot be stored without a configuration provider: start with -cp")
        for path, value in secret_keys(name, data).items():
            await self._keeper.put(f"{private_key(self._config.key)}/{path}", value)


class _Measured:
    """Secrets, counted and timed as EdgeX's metrics have it."""

    def __init__(self, secrets: Secrets, metrics: Metrics) -> None:
        self._secrets = secrets
        self._requested = metrics.counter("SecuritySecretsRequested")
        self._stored = metrics.counter("SecuritySecretsStored")
        self._duration = metrics.timer("SecurityGetSecretDuration")

    async def secret(self, name: str) -> dict[str, str]:
        self._requested.add()
        began_ns = time.perf_counter_ns()
        try:
            return await self._secrets.secret(name)
        finally:
            self._duration.since(began_ns)

    async def store(self, name: str, data: dict[str, str]) -> None:
        self._stored.add()
        await self._secrets.store(name, data)


def measured(secrets: Secrets, metrics: Metrics) -> Secrets:
    """Return the same secrets, their use counted in `SecuritySecrets…`."""
    return _Measured(secrets, metrics)


class Security:
    """What `open_security` found; in insecure mode it asks and sends nothing."""

    def __init__(self, store: "SecretStore | None", due_in_s: float | None, check_jwt: bool) -> None:
        """Use a connected secret store, None in insecure mode; `due_in_s`: when its token is due."""
        self._store = store
        self._due_in_s = due_in_s
        self._check_jwt = check_jwt

    @property
    def tokens(self) -> Tokens | None:
        """Return where our own calls get their token."""
        return self._store

    def secrets(self, config: LiveConfig, keeper: KeeperClient | None) -> Secrets:
        """Return the service's secrets; `keeper` is where insecure ones are written."""
        return self._store if self._store is not None else InsecureSecrets(config, keeper)

    def check(self, proxy_auth: Rest) -> Check | None:
        """Return what checks the `Authorization` header of each request; None: nothing does."""
        if self._store is None:
            return None
        if not self._check_jwt:
            log.warning("EDGEX_DISABLE_JWT_VALIDATION is set: whoever reaches this service may use it")
            return None
        from edgeagents.adapters.jwt_auth import IssuerKeys, JwtCheck

        return JwtCheck(self._store.is_active, IssuerKeys(proxy_auth), JwtSettings().leeway_s).check

    async def run(self) -> None:
        """Keep the token of the secret store alive; returns at once in insecure mode."""
        if self._store is not None:
            await self._store.run(self._due_in_s)


@asynccontextmanager
async def open_security(options: Options, budget: Budget) -> AsyncIterator[Security]:
    """Have a service's security inside the block; waits for the secret store in secure mode.

    Raises:
        UnavailableError: the secret store did not take our token within the budget.
        ConfigurationError: a setting or the file of secrets cannot be.
    """
    settings = options.secret_store
    if settings is None:
        yield Security(None, None, options.check_jwt)
        return
    # Imported in secure mode alone: tokens and cryptography are a twentieth of what an agent's start costs.
    from edgeagents.adapters.secret_store import SecretStore
    from edgeagents.adapters.secrets_file import seed

    store = SecretStore(settings)
    try:
        due_in_s = await budget.until(f"the secret store at {settings.url}", store.connect)
        if settings.secrets_file:
            await budget.until("the file of secrets to be stored", lambda: seed(store, settings))
        yield Security(store, due_in_s, options.check_jwt)
    finally:
        await store.close()
