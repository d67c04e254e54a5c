"""The file of secrets that is stored at a start: real OpenBao, good and bad files."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagents.adapters.secret_settings import SecretStoreSettings
from edgeagents.adapters.secret_store import SecretStore
from edgeagents.adapters.secrets_file import seed
from edgeagents.errors import ConfigurationError
from tests.openbao import openbao_in


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecretStoreSettings]:
    """A service that secretstore-setup knows."""
    with openbao_in(tmp_path_factory.mktemp("openbao")) as server:
        yield server.add_service("app-seeded")


@pytest.fixture
async def store(settings: SecretStoreSettings) -> AsyncIterator[SecretStore]:
    """A connected store."""
    connected = SecretStore(settings)
    await connected.connect()
    yield connected
    await connected.close()


async def test_a_file_of_secrets_is_stored_and_scrubbed_once(
    settings: SecretStoreSettings, store: SecretStore, tmp_path: Path
) -> None:
    file = tmp_path / "secrets.json"
    secrets = [
        {"secretName": "mail", "imported": False, "secretData": [{"key": "password", "value": "p4ss"}]},
        {"secretName": "old", "imported": True, "secretData": []},
    ]
    file.write_text(json.dumps({"secrets": secrets}))
    wanted = replace(settings, secrets_file=str(file))
    await seed(store, wanted)
    await seed(store, wanted)
    assert await store.secret("mail") == {"password": "p4ss"}
    assert "p4ss" not in file.read_text()
    assert [item["imported"] for item in json.loads(file.read_text())["secrets"]] == [True, True]


@pytest.mark.parametrize(
    "content",
    [None, "no json", '{"secrets": [{"secretName": " ", "secretData": [{"key": "k", "value": "h1dden"}]}]}',
     '{"secrets": [{"secretName": "n", "secretData": [{"key": "", "value": "h1dden"}]}]}',
     '{"secrets": [{"secretName": "n", "secretData": []}]}'],
)  # fmt: skip
async def test_a_file_of_secrets_that_cannot_be_is_told_without_its_secrets(
    settings: SecretStoreSettings, store: SecretStore, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "secrets.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match="SECRETSTORE_SECRETSFILE") as raised:
        await seed(store, replace(settings, secrets_file=str(file)))
    assert "h1dden" not in str(raised.value)
