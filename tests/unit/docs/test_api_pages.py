"""The pages of docs/api are what the code says, and what their specifications allow."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from edgeagents import permissions, subjects
from edgeagents.adapters import wire
from edgeagents.model import cooperation, message
from services.api_pages.__main__ import FOLDER, pages
from services.api_pages.channels import HOLES, channels

SERVICES = ("agent", "coordinator", "guard", "inference")


@cache
def made() -> dict[str, str]:
    """Return the pages as the code says them now."""
    return pages()


@cache
def document(name: str = "messages.asyncapi.json") -> dict[str, Any]:
    """Return one of them, the one of NATS unless another is named."""
    found: dict[str, Any] = json.loads(made()[name])
    return found


def test_what_is_committed_is_what_the_code_says() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == made(), "make api-pages"


@pytest.mark.parametrize("service", SERVICES)
def test_each_openapi_page_is_valid_and_says_what_every_route_does_and_answers(service: str) -> None:
    page = document(f"{service}.openapi.json")
    assert page["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(page).validate()
    for path, item in page["paths"].items():
        for method, route in item.items():
            where = f"{method} {path}"
            assert route.get("description"), where
            good = [answer for status, answer in route["responses"].items() if status.startswith("2")]
            assert good, where
            assert all("description" in answer and answer["description"] for answer in good), where
            schemas = [media["schema"] for answer in good for media in answer.get("content", {}).values()]
            assert path == "/api/v3/trigger" or (schemas and all(schemas)), where  # its answer is a pipeline's own
            assert not any(schema.get("additionalProperties") is True for schema in schemas), f"{where} says nothing"
            assert path == "/api/v3/trigger" or "422" not in route["responses"], f"{where}: bad input is a 400 here"
            assert method == "get" or path == "/api/v3/trigger" or route.get("requestBody") or "{" in path, where


def test_what_people_say_to_the_guard_needs_an_approvers_token_by_the_page_too() -> None:
    page = document("guard.openapi.json")
    assert page["components"]["securitySchemes"]["approver"] | {"description": ""} == {
        "type": "http", "scheme": "bearer", "description": ""}  # fmt: skip
    for path, item in page["paths"].items():
        for route in item.values():
            assert ("security" in route) is ("people" in route.get("tags", ())), path
            assert "uthorization" not in json.dumps(route.get("parameters", [])), path
    assert sum("people" in route.get("tags", ()) for item in page["paths"].values() for route in item.values()) == 5


def test_a_body_that_a_route_reads_by_itself_is_described_as_it_is_read() -> None:
    page = document("coordinator.openapi.json")
    schema = page["paths"]["/api/v3/task"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.Draft202012Validator(schema)
    good = {"skill": "set", "deviceName": "a", "resourceName": "b", "value": "1"}
    assert validator.is_valid(good)
    assert validator.is_valid({"apiVersion": "v3", "task": good})
    assert validator.is_valid([good, good])
    assert not validator.is_valid({"deviceName": "a"})
    assert not validator.is_valid({**good, "colour": "red"})


# --- AsyncAPI: its structure, as the specification has it -------------------------------------------


def resolved(reference: str) -> Any:
    found: Any = document()
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/")]
    return found


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return [*own, *(item for part in value.values() for item in references(part))]
    return [item for part in value for item in references(part)] if isinstance(value, list) else []


def test_the_asyncapi_page_holds_together() -> None:
    assert document()["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document()["info"])
    for reference in references(document()):
        assert resolved(reference) is not None, reference
    for name, channel in document()["channels"].items():
        holes = set(re.findall(r"\{(\w+)\}", channel["address"] or ""))
        assert holes == set(channel.get("parameters", {})), name
        assert channel["messages"], name
    for name, operation in document()["operations"].items():
        assert operation["action"] in ("send", "receive"), name
        channel = resolved(operation["channel"]["$ref"])
        said = [reference["$ref"].rsplit("/", 1)[1] for reference in operation["messages"]]
        assert set(said) <= set(channel["messages"]), name
        if "reply" in operation:
            answers = resolved(operation["reply"]["channel"]["$ref"])
            assert answers["address"] is None, name
            told = [reference["$ref"].rsplit("/", 1)[1] for reference in operation["reply"]["messages"]]
            assert set(told) <= set(answers["messages"]), name


def test_all_that_users_may_say_or_hear_of_ours_is_in_the_page() -> None:
    known = [channel.address for channel in channels()]
    for rights in (
        permissions.for_agent("GATEWAY", "AGENT", peers=["PEER"]), permissions.for_coordinator("GATEWAY"),
        permissions.for_inference("GATEWAY"),
    ):  # fmt: skip
        for subject in (*rights.publish, *rights.subscribe):
            if subject.startswith(("GATEWAY.", "PEER.")):
                assert any(covers(subject, address) for address in known), subject


def covers(filter_: str, address: str) -> bool:
    """Say whether a subject of the page is one that a permission is about."""
    ours, theirs = address.split("."), filter_.split(".")
    return len(ours) == len(theirs) and all(
        there in ("*", here) or here in HOLES for here, there in zip(ours, theirs, strict=True)
    )


def test_every_message_of_proto_has_a_schema_and_every_subject_is_made_by_the_code() -> None:
    assert {model.__name__ for model in wire.PB_CLASSES} <= set(document()["components"]["schemas"])
    commands = document()["channels"]["commands"]["address"]
    assert commands == subjects.command("G", "D", "A").replace("G", "{gateway}").replace("D", "{device}").replace(
        "A", "{agent}"
    )


EXAMPLES: list[message.Message] = [
    message.Heartbeat(incarnation="run-1"),
    message.SessionWelcome(generation=2**40, mode="act", site=(
        message.SiteEntry(device="lamp", resource="On", risk_class="A", kind="absolute"),)),
    message.LeaseRequest(incarnation="r", device="lamp", resource="On"),
    message.LeaseReply(granted=True, epoch=message.Epoch(generation=1, revision=2), holder="a"),
    message.Command(id=message.CommandId("c"), device="lamp", resource="On", value="true", incarnation="r",
                    epoch=message.Epoch(generation=1, revision=2), ttl_s=3.5,
                    cause=message.Cause(stream="s", sequence=7)),
    message.Outcome(command_id=message.CommandId("c"), device="lamp", resource="On", status="proven", read_back=""),
    cooperation.Announcement(incarnation="r", skills=("set",)),
    cooperation.Act(version=1, performative="cfp", conversation="t", call=cooperation.CallForProposals(
        task="t", skill="set", params=(cooperation.Param(name="a", value="b"),), accepted_unix_ns=2**60)),
    cooperation.LedgerAsk(verb="take", task="t", epoch=3),
    cooperation.LedgerTold(task="t", status="taken"),
]  # fmt: skip


@pytest.mark.parametrize("said", EXAMPLES, ids=lambda said: type(said).__name__)
def test_what_is_written_as_json_is_what_its_schema_says_and_is_read_back(said: message.Message) -> None:
    name = type(said).__name__
    schema = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    data = wire.encode(said, wire.JSON)
    validator.validate(json.loads(data))
    assert wire.decode(type(said), data, f"{wire.JSON}; charset=utf-8") == said
    assert not validator.is_valid([])
    needed = resolved(schema["$ref"]).get("required", [])  # type: ignore[arg-type]
    assert all(not validator.is_valid({k: v for k, v in json.loads(data).items() if k != field}) for field in needed)


def test_the_plain_page_names_every_route_and_every_subject() -> None:
    page = made()["README.md"]
    for service in SERVICES:
        for path, item in document(f"{service}.openapi.json")["paths"].items():
            assert all(f"`{method.upper()} {path}`" in page for method in item)
    for channel in document()["channels"].values():
        assert channel["address"] is None or f"`{channel['address']}`" in page


def test_a_stale_folder_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.api_pages.__main__ import main

    monkeypatch.setattr("sys.argv", ["api_pages", "--to", str(tmp_path), "--check"])
    assert main() == 1
    monkeypatch.setattr("sys.argv", ["api_pages", "--to", str(tmp_path)])
    assert main() == 0
    monkeypatch.setattr("sys.argv", ["api_pages", "--to", str(tmp_path), "--check"])
    assert main() == 0
    (tmp_path / "guard.openapi.json").write_text("{}")
    assert main() == 1
