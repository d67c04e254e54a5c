"""A file of secrets that an owner lays beside a service: stored in its secret store at the start, then scrubbed.

Source: `SecretStore.SecretsFile` of EdgeX 4.0.
"""

import asyncio
import logging
from pathlib import Path

from pydantic import ValidationError, field_validator, model_validator

from edgeagents.adapters.secret_settings import SecretStoreSettings
from edgeagents.adapters.secret_store import SecretStore
from edgeagents.adapters.web import SecretItem
from edgeagents.errors import ConfigurationError
from edgeagents.model.device import EdgexModel

log = logging.getLogger(__name__)


class SeededSecret(EdgexModel):
    """One secret of the file; an imported one holds no data any more."""

    secret_name: str
    imported: bool = False
    secret_data: tuple[SecretItem, ...] = ()

    @field_validator("secret_name")
    @classmethod
    def _named(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("must not be empty")
        return text.strip()

    @model_validator(mode="after")
    def _has_data(self) -> "SeededSecret":
        if not self.imported and not self.secret_data:
            raise ValueError("secretData must not be empty unless imported is true")
        return self


class SecretsFile(EdgexModel):
    """The whole file."""

    secrets: tuple[SeededSecret, ...]


async def seed(store: SecretStore, settings: SecretStoreSettings) -> None:
    """Store what the file holds and was not imported yet, then take the values out of the file.

    Raises:
        ConfigurationError: the file cannot be read, is malformed or cannot be scrubbed.
        UnavailableError: the secret store is away or sealed.
    """
    path = Path(settings.secrets_file)
    wanted = await asyncio.to_thread(_read, path)
    for secret in wanted.secrets:
        if not secret.imported:
            await store.store(secret.secret_name, {item.key: item.value for item in secret.secret_data})
            log.info("secret %r of %s stored", secret.secret_name, path)
    if settings.scrub_secrets_file:
        await asyncio.to_thread(_scrub, path, wanted)


def _read(path: Path) -> SecretsFile:
    try:
        return SecretsFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"SECRETSTORE_SECRETSFILE={path}: {error.strerror}: is the path right?") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        # The cause would quote the secrets.
        raise ConfigurationError(f"SECRETSTORE_SECRETSFILE={path}: {where}: {first['msg']}") from None


def _scrub(path: Path, wanted: SecretsFile) -> None:
    done = [secret.model_copy(update={"imported": True, "secret_data": ()}) for secret in wanted.secrets]
    text = SecretsFile(secrets=tuple(done)).model_dump_json(by_alias=True, indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"SECRETSTORE_SECRETSFILE={path}: its secrets are stored but cannot be taken out of it: {error.strerror}: "
            "make it writable, or set SECRETSTORE_DISABLESCRUBSECRETSFILE=true"
        ) from error
