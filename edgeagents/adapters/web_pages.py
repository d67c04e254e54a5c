"""What the OpenAPI page of a route says of what it takes and answers: models beside the code, nothing at run time.

Routes answer with plain values that are already what clients see; validating them again would cost time and could turn
a good answer into an error. So a model here describes an answer and changes none; tests hold real answers against them.

Source: OpenAPI 3.1; edgex-wire.md section 4 (error bodies).
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

JSON: Final = "application/json"
_DEFS: Final = "#/$defs/"
MOST_NESTED: Final = 16  # definitions within each other: more would be a schema that holds itself


class Shown(BaseModel):
    """Base of what routes answer: camelCase on the wire."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="allow")


class Answer(Shown):
    """What every answer of EdgeX's kind begins with."""

    api_version: str = Field(description="always v3")
    status_code: int = Field(description="the HTTP status once more")


class EventStream(StreamingResponse):
    """Server-sent events; for the page alone: routes make their own."""

    media_type = "text/event-stream"


class ErrorBody(Answer):
    """Why there is no answer."""

    message: str = Field(description="what failed, on what, and what to try; for people")
    request_id: str = Field("", description="the request's own, if it had one")


class Ping(Shown):
    """That the service is up."""

    api_version: str
    timestamp: str = Field(description="the service's clock, as `Mon Nov 24 10:00:00 UTC 2026`")
    service_name: str


class Version(Shown):
    """Which versions speak."""

    api_version: str
    version: str = Field(description="of the service")
    service_name: str
    sdk_version: str = Field(alias="sdk_version", description="the EdgeX release whose contract is kept")


class Config(Shown):
    """The whole configuration, secrets hidden."""

    api_version: str
    config: dict[str, Any]
    service_name: str


class Stored(Answer):
    """A secret was stored."""

    request_id: str = ""


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "default": {"model": ErrorBody, "description": "Refused or failed: `statusCode` and `message` say why."}
}


def shows(
    model: type[BaseModel] | Any,
    description: str,
    status: int = 200,
    *,
    also: Mapping[int, tuple[Any, str]] | None = None,
) -> dict[str, Any]:
    """Return what a route's decorator is told so that its page says what it answers.

    Args:
        model: of the body.
        description: of the answer, for the page.
        status: of the answer.
        also: further statuses with their models and descriptions.
    """
    every = {status: (model, description), **(also or {})}
    responses = {number: {"model": one, "description": text} for number, (one, text) in every.items()}
    return {"response_model": None, "responses": responses, **({"status_code": status} if status != 200 else {})}


def streams(description: str) -> dict[str, Any]:
    """Return the same for a route that answers with server-sent events."""
    content = {"text/event-stream": {"schema": {"type": "string", "description": description}}}
    responses = {200: {"description": description, "content": content}}
    return {"response_model": None, "response_class": EventStream, "responses": responses}


def takes(*models: type[BaseModel], arrays_of: type[BaseModel] | None = None, example: Any = None) -> dict[str, Any]:
    """Return what a decorator is told of a body that the route reads by itself: any of some models.

    Args:
        models: it may be.
        arrays_of: it may be an array of these.
        example: of a body.
    """
    found = [inlined(model.model_json_schema(by_alias=True)) for model in models]
    if arrays_of is not None:
        found.append({"type": "array", "items": inlined(arrays_of.model_json_schema(by_alias=True))})
    schema = found[0] if len(found) == 1 else {"anyOf": found}
    content = {"schema": schema, **({"example": example} if example is not None else {})}
    return {"openapi_extra": {"requestBody": {"required": True, "content": {JSON: content}}}}


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema without `$defs`: what they define stands where it is meant.

    Raises:
        ValueError: it holds itself.
    """
    definitions = schema.get("$defs", {})

    def plain(value: Any, depth: int) -> Any:
        if depth > MOST_NESTED:
            raise ValueError("a schema that holds itself cannot be written without definitions")
        if isinstance(value, Mapping):
            reference = value.get("$ref")
            if isinstance(reference, str) and reference.startswith(_DEFS):
                rest = {name: item for name, item in value.items() if name != "$ref"}
                return plain({**definitions[reference.removeprefix(_DEFS)], **rest}, depth + 1)
            return {name: plain(item, depth) for name, item in value.items() if name != "$defs"}
        return [plain(item, depth) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = plain(schema, 0)
    return found
