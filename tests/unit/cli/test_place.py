"""Where a gateway is: from options, from variables, from the folder of a demo."""

import json
from pathlib import Path

import pytest

from edgeagents.cli.place import PLACE_FILE, Place
from edgeagents.cli.source import Broker
from edgeagents.embedded import gateway
from edgeagents.errors import ConfigurationError


def test_the_folder_of_a_demo_says_everything(tmp_path: Path) -> None:
    # fmt: off
    said = {"gateway": "home", "nats": "nats://n:1", "user": "owner", "password_file": "/p", "keeper": "http://k:1/",
            "guard": "http://g:1", "site_file": "/s.yaml", "agents_dir": "/a", "guard_dir": "/v", "store_dir": "/j"}
    # fmt: on
    (tmp_path / PLACE_FILE).write_text(json.dumps(said))
    place = Place(folder=tmp_path, nats="nats://other:1").resolved()
    assert (place.gateway, place.nats, place.keeper) == ("home", "nats://n:1", "http://k:1")
    assert (place.site_file, place.guard_dir) == (Path("/s.yaml"), Path("/v"))
    settings = place.bus_settings()
    assert (settings.nats_user, settings.nats_password_file) == ("owner", Path("/p"))


def test_the_demo_writes_what_is_read_here() -> None:
    assert gateway.PLACE_FILE == PLACE_FILE


@pytest.mark.parametrize("text", ["", "[]", '{"what": "x"}', "{"])
def test_a_folder_that_is_no_gateways_is_told(tmp_path: Path, text: str) -> None:
    if text:
        (tmp_path / PLACE_FILE).write_text(text)
    with pytest.raises(ConfigurationError, match=r"gateway\.json: .*make demo"):
        Place(folder=tmp_path).resolved()


def test_keepers_address_may_be_written_as_edgex_services_are_given_it() -> None:
    assert Place(keeper="keeper.http://k:59890/").resolved().keeper == "http://k:59890"


ADDRESSES = ["keeper", "guard", "coordinator", "inference"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:598900", "http://a..b:80", "http://[::1", "h:1", "", "http://h:0"])
@pytest.mark.parametrize("option", ADDRESSES)
def test_an_address_that_is_none_names_its_option_and_what_to_write(option: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--{option} .* write http://host:port, port 1 to 65535"):
        Place(**{option: url}).resolved()


def test_a_gateway_needs_a_name() -> None:
    with pytest.raises(ConfigurationError, match=r"gateway: .* correct the option, or EDGEAGENTS_GATEWAY"):
        Place(gateway="").resolved()


async def test_the_audits_broker_needs_one_too() -> None:
    with pytest.raises(ConfigurationError, match="EDGEAGENTS_GATEWAY"):
        async with Broker(gateway="").connected():
            pass


def test_a_variable_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEAGENTS_EDGEX_BUS", "pigeons")
    with pytest.raises(ConfigurationError, match="EDGEAGENTS_EDGEX_BUS"):
        Place().resolved()
