"""The fixtures of the contract suite, which is the same for every EdgeX.

Without options the embedded core is started for the run. `make test-edgex` names another one.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from edgeagents.adapters.config import duration_s
from edgeagents.errors import TheirError
from edgeagents.model.device import Device, DeviceService
from tests.contract import traces
from tests.contract.bridge import Bridge
from tests.contract.edgex import Edgex, connected
from tests.contract.lab import Lab, running_lab
from tests.contract.running import Running, app_spec, listening_only, nothing_more, running
from tests.contract.target import Target, embedded, running_elsewhere
from tests.nats import NatsServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what names another EdgeX than the embedded core."""
    group = parser.getgroup("edgex", "a running EdgeX for tests/contract (default: the embedded core)")
    group.addoption("--keeper", metavar="URL", help="core-keeper, http://host:59890")
    group.addoption("--broker", metavar="URL", help="its broker, nats://host:4222 or mqtt://host:1883")
    group.addoption(
        "--edgex-bus", choices=("mqtt", "nats-core", "nats-jetstream"), default="",
        help="what EdgeX speaks; must be what keeper says; for the embedded core: what it is to speak",
    )  # fmt: skip
    group.addoption("--edgex-host", metavar="HOST", default="", help="where EdgeX reaches this process")
    group.addoption("--ekuiper", metavar="URL", default="", help="an eKuiper beside it, http://host:59720")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The EdgeX that is tested."""
    keeper, broker, bus, host = (
        request.config.getoption(name, default=None) or "" for name in ("keeper", "broker", "edgex_bus", "edgex_host")
    )
    if bool(keeper) != bool(broker):
        pytest.exit("--keeper and --broker go together", returncode=2)
    if keeper:
        yield running_elsewhere(keeper, broker, bus, host)
        return
    with embedded(tmp_path_factory.mktemp("edgex"), bus or "mqtt") as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def edgex(target: Target) -> AsyncIterator[Edgex]:
    """The EdgeX that is tested; what the run made there is removed at the end."""
    async with AsyncExitStack() as stack:
        try:
            found = await stack.enter_async_context(connected(target))
        except TheirError as error:
            pytest.exit(f"--keeper {target.keeper_url} --broker {target.broker}: {error}", returncode=2)
        stack.push_async_callback(traces.remove, found, found.run)
        await _check_broker(found)
        yield found


async def _check_broker(edgex: Edgex) -> None:
    """Leave at once when keeper's notices do not come over this broker: nothing else would."""
    root = f"edgex/v4/{edgex.name('app-probe')}"
    async with edgex.watch(f"edgex/configs/{root}/#", absolute=True) as seen:
        await edgex.keeper.put(f"{root}/Probe", "1")
        try:
            await seen.first()
        except AssertionError:
            broker = edgex.target.broker
            pytest.exit(f"--broker {broker}: what keeper writes is not told there: is it EdgeX's broker?", returncode=2)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_url(target: Target, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The nats-server for our services: EdgeX's own broker, or one of ours and a bridge to an MQTT broker."""
    if not target.is_mqtt:
        yield target.broker
        return
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    try:
        async with Bridge(target.broker, server.url, target.base):
            yield server.url
    finally:
        server.kill()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(edgex: Edgex, nats_url: str) -> AsyncIterator[Lab]:
    """Our device service, with a device of every value type."""
    async with running_lab(edgex, nats_url) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def app(edgex: Edgex, nats_url: str) -> AsyncIterator[Running]:
    """An application service of ours that has nothing of its own."""
    async with running(edgex, nats_url, app_spec(edgex, edgex.name("app-contract")), nothing_more) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def silent_service(edgex: Edgex) -> AsyncIterator[str]:
    """A device service in core-metadata that answers neither on the bus nor over HTTP, though its port is open."""
    name = edgex.name("device-silent")
    async with listening_only(edgex.target.bind) as port:
        await edgex.metadata.add_service(DeviceService(name=name, base_address=f"http://{edgex.target.host}:{port}"))
        yield name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def silent_device(edgex: Edgex, lab: Lab, silent_service: str) -> str:
    """A device of the silent service."""
    name = edgex.name("lamp")
    device = Device(name=name, service_name=silent_service, profile_name=lab.profile, protocols={"lab": {}})
    await edgex.metadata.add_device(device, validate=False)
    return name


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def request_timeout_s(edgex: Edgex) -> float:
    """How long core-command waits for a device service."""
    config = (await edgex.ask("core-command", "GET", "/config")).body["config"]
    return duration_s(config["Service"]["RequestTimeout"])
