"""Hours of bad input, compressed: decoders, configuration, profile YAML and HTTP bodies, for FUZZ_SECONDS in all.

    make test-long                      ten minutes
    make test-long FUZZ_SECONDS=20      a try

Each round searches anew from a seed of its own, printed when it finds something.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok

from edgeagents.adapters import cbor, config
from edgeagents.adapters.defaults import common_defaults, private_defaults
from edgeagents.adapters.envelopes import CBOR, JSON, Encoding, encode_envelope, encode_headers
from edgeagents.adapters.events import decode_message
from edgeagents.adapters.provisioning import load_inventory
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.errors import ConfigurationError, InvalidInputError, MalformedMessageError
from edgeagents.model.envelope import Envelope
from tests.unit.adapters.test_cbor import heads, plain
from tests.unit.adapters.test_events import encodings, events, request_of
from tests.unit.adapters.test_events_hostile import TOPICS, any_text, header_names, header_values, json_values, payloads

ROOT: Final = Path(__file__).resolve().parents[2]
PROFILES: Final = ROOT / "edgex-profiles" / "home"
ROUND: Final = 500


def search(seconds: float, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Draw examples until the time is up; a failure is shrunk and tells its seed."""
    end = time.monotonic() + seconds
    examples, round_ = 0, 0
    while time.monotonic() < end:
        round_ += 1

        @seed(round_)
        @settings(
            max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.target, Phase.shrink],
        )  # fmt: skip
        @given(strategy)
        def one_round(example: Any) -> None:
            nonlocal examples
            if time.monotonic() < end:
                examples += 1
                check(example)

        one_round()
    print(f"{examples} examples in {round_} rounds")
    assert examples


# --- decoders ------------------------------------------------------------------------------------


def flipped(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Return bytes with some of them changed, cut out or put in."""
    raw = bytearray(data)
    for place, length, instead in changes:
        where = place % (len(raw) + 1)
        raw[where : where + length] = instead
    return bytes(raw)


scraps = st.binary(max_size=8) | heads() | st.sampled_from([b"NaN", b"\\ud800", b"[" * 70, b"1e999", b"\xd8\x1c", b"{"])
changes = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30), scraps), max_size=6)
sound = st.builds(
    lambda one, encoding: encode_envelope(Envelope(request_of(one), "c", "q"), encoding), events(), encodings
)
hostile_data = st.one_of(
    st.binary(max_size=300),
    st.builds(flipped, sound, changes),
    st.lists(heads() | st.binary(max_size=4), max_size=40).map(b"".join),
    plain.map(lambda value: cbor.dumps({"payload": value})),
    payloads.map(lambda body: json.dumps({"payload": body, "contentType": JSON}).encode()),
    json_values.map(lambda body: json.dumps(body).encode()),
)
headers = st.none() | st.dictionaries(st.sampled_from(header_names), header_values | st.sampled_from([CBOR, JSON]))


def test_any_message_in_any_encoding_is_a_meaning_or_a_counted_rejection(share_s: float) -> None:
    def check(example: tuple[str, bytes, dict[str, str] | None]) -> None:
        with suppress(MalformedMessageError):
            message = decode_message(*example)
            for encoding in (Encoding(), Encoding(cbor=True, optimise=True)):
                with suppress(InvalidInputError):  # JSON's numbers know no bounds, CBOR's do
                    decode_message(message.topic, encode_envelope(message.envelope, encoding))
                    decode_message(message.topic, *encode_headers(message.envelope, encoding))

    search(share_s, st.tuples(st.sampled_from(TOPICS) | any_text, hostile_data, headers), check)


# --- configuration -------------------------------------------------------------------------------

DEFAULTS: Final = config.merge(common_defaults("app"), private_defaults("app-x", "app", 59750))
LEAVES: Final = config.flatten(DEFAULTS)
paths = st.sampled_from(sorted(LEAVES)) | st.lists(st.text(max_size=6), min_size=1, max_size=5).map("/".join)
texts = st.text(max_size=12) | st.sampled_from(
    ["true", "7", "-1", "1e9", "10s", "5h3m", "[]", "{}", "null", "nan", "٣"]
)


def test_any_configuration_in_keeper_is_a_tree_or_a_configuration_error(share_s: float) -> None:
    def check(example: tuple[dict[str, str], dict[str, str]]) -> None:
        stored, environ = example
        with suppress(ConfigurationError):
            tree = config.override(config.typed(config.unflatten(stored), DEFAULTS), environ)
            merged = config.merge(DEFAULTS, tree)
            config.hidden(merged)
            config.shown(merged)
            json.dumps(config.flatten(merged), default=str)
            config.changes(DEFAULTS, merged)

    variables = st.dictionaries(paths.map(config.variable_of), texts, max_size=4)
    search(share_s, st.tuples(st.dictionaries(paths, texts, max_size=8), variables), check)


# --- YAML of profiles and devices ----------------------------------------------------------------

FILES: Final = [path.read_text(encoding="utf-8") for path in sorted(PROFILES.glob("profiles/*.yaml"))]
HOSTILE_YAML: Final = [
    "a: &a [*a]", "? {}\n: 1", "- " * 500, "[" * 2000, "x: !!python/object:os.system 1", "\x00", "<<: 1",
]  # fmt: skip
wild_yaml = st.one_of(
    st.text(max_size=200),
    st.sampled_from(HOSTILE_YAML),
    st.builds(lambda text, edits: flipped(text.encode(), edits).decode(errors="replace"),
              st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 40),
              st.text(max_size=6).map(str.encode)), min_size=1, max_size=4)),
    st.builds(lambda text, key, value: yaml.safe_dump(put(yaml.safe_load(text), key, value)),
              st.sampled_from(FILES), st.lists(st.integers(0, 20), min_size=1, max_size=6), json_values),
)  # fmt: skip


def put(tree: Any, way: list[int], value: Any) -> Any:
    """Return a tree with the value at one place of it replaced."""
    if not way or not isinstance(tree, dict | list) or not tree:
        return value
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = keys[way[0] % len(keys)]
    tree[key] = put(tree[key], way[1:], value)
    return tree


def test_any_profile_file_is_a_profile_or_a_configuration_error(share_s: float, tmp_path: Path) -> None:
    folders = tmp_path / "profiles", tmp_path / "devices"
    for folder in folders:
        folder.mkdir()

    def check(text: str) -> None:
        (folders[0] / "one.yaml").write_text(text, encoding="utf-8", errors="replace")
        with suppress(ConfigurationError):
            load_inventory(*folders)

    search(share_s, wild_yaml, check)


# --- HTTP ----------------------------------------------------------------------------------------


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A whole gateway: the home and its agents."""
    gateway = Gateway(Plan(tmp_path, PROFILES, 60.0, WINTER_MORNING_S))
    gateway.start()
    try:
        await gateway.ready()
        yield gateway
    finally:
        await gateway.stop()


async def address_of(gateway: Gateway, prefix: str) -> str:
    """Return where a service answers, as keeper knows it."""
    answer = await gateway.http.get(f"http://127.0.0.1:{gateway.ports['keeper']}/api/v3/registry/all")
    found = sorted(answer.json()["registrations"], key=lambda row: str(row["serviceId"]))
    row = next(row for row in found if row["serviceId"].startswith(prefix))
    return f"http://{row['host']}:{row['port']}"


def operations(url: str) -> Iterator[Any]:
    """Return every operation of a service's own OpenAPI."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        yield result.ok()


@pytest.mark.parametrize("prefix", ["app-agent-", "device-world-"])
async def test_any_request_is_answered_and_never_with_a_server_error(
    gateway: Gateway, share_s: float, prefix: str
) -> None:
    url = await address_of(gateway, prefix)
    known = list(operations(url))
    assert len(known) >= 5

    def check(case: Any) -> None:
        response = case.call(timeout=10)
        case.validate_response(response, checks=[not_a_server_error])

    for operation in known:
        await asyncio.to_thread(search, share_s / len(known), operation.as_strategy(), check)
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{url}/api/v3/ping")).status_code == 200
