"""How the command line talks to a guard: its address, an approver's token, and answers turned into errors.

Source: design.md section 3.6.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import Parameter

from edgeagents.errors import UnavailableError, UpstreamError, error_for_status
from edgeagents.settings import read_secret

Guard = Annotated[str, Parameter(name="--guard", env_var="EDGEAGENTS_GUARD_URL", help="address of the guard")]
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
        UnavailableError: it cannot be reached.
        UpstreamError: what answers is no guard.
        EdgeAgentsError: what its error answer means, or the token cannot be read.
    """
    headers = {"Authorization": f"Bearer {read_secret(token_file).get_secret_value()}"} if token_file else {}
    try:
        answer = httpx.request(method, f"{guard.rstrip('/')}{path}", headers=headers, json=body, timeout=10.0)
    except httpx.HTTPError as error:
        raise UnavailableError(f"guard {guard}: {error}: is it up, is --guard right?") from error
    try:
        content = answer.json()
    except ValueError as error:
        raise UpstreamError(f"guard {guard}: answered {answer.status_code} without JSON: is it a guard?") from error
    if answer.is_error:
        raise error_for_status(answer.status_code, str(content.get("message", content)))
    return dict(content)
