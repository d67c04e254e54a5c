"""How the command line talks to a guard: its address, and an approver's token.

Source: design.md section 3.6.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from edgeagents.cli import service
from edgeagents.errors import ConfigurationError
from edgeagents.settings import read_secret

OPTION: Final = "--guard"
Guard = Annotated[str, Parameter(name=OPTION, env_var="EDGEAGENTS_GUARD_URL", help="address of the guard")]
TokenFile = Annotated[
    Path, Parameter(name="--token-file", env_var="EDGEAGENTS_TOKEN_FILE", help="file with your approver's token")
]
Reason = Annotated[str, Parameter(name="--reason", help="kept in the audit")]
DEFAULT_GUARD = "http://127.0.0.1:59740"


def call(
    method: str, guard: str, path: str, token_file: Path | None = None, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a guard's answer; `token_file` holds the approver's token where one is needed.

    Raises:
        EdgeAgentsError: as `service.call`, or the token cannot be read.
    """
    return service.call(_guard(guard), method, path, headers=_headers(token_file), body=body)


def understood(guard: str) -> AbstractContextManager[None]:
    """Read a guard's answer within; raises as `service.understood`."""
    return service.understood(_guard(guard), "guard")


def _guard(url: str) -> service.Service:
    return service.Service("guard", OPTION, url)


def _headers(token_file: Path | None) -> dict[str, str]:
    if token_file is None:
        return {}
    token = read_secret(token_file).get_secret_value()
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError(
            f"secret file {token_file}: a token has neither umlauts nor lines: write it there alone"
        )
    return {"Authorization": f"Bearer {token}"}
