"""The common configuration that the embedded keeper gives every EdgeX service, and what the core's own apps report.

The keys are those that EdgeX's bootstrapper writes; the values are ours. What names an address is written again at
every start, because it describes this process; everything else only when it is absent, because the owner may have
changed it.

Source: recordings of EdgeX 4.0.2 (the common tree); edgex-wire.md section 3.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from edgeagents.adapters.config import merge
from edgeagents.adapters.ports import host_in_url
from edgeagents.embedded.http import VERSION
from edgeagents.settings import BusSettings

STEM: Final = "edgex/v4"
COMMON: Final = f"{STEM}/core-common-config-bootstrapper"
READY_KEY: Final = f"{COMMON}/IsCommonConfigReady"
_ADDRESS_PARTS: Final = ("/Clients/core-", "/Registry/", "/MessageBus/", "/Service/Host", "/Service/Port")
_OWN: Final = tuple(f"{STEM}/core-{name}/" for name in ("common-config-bootstrapper", "metadata", "data", "command"))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the core's services answer: the host that others reach them at, and a port each."""

    host: str
    keeper: int
    metadata: int
    data: int
    command: int
    mqtt_port: int = 1883

    def url(self, service: str) -> str:
        """Return `http://host:port` of `keeper`, `metadata`, `data` or `command`."""
        return f"http://{host_in_url(self.host)}:{getattr(self, service)}"


def text_of(value: Any) -> str:
    """Return a scalar as keeper stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield key and text of every leaf."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}", text_of(value)


def is_address(key: str) -> bool:
    """Say whether a key of the common configuration or of a core service tells where this process or its broker is."""
    return any(part in key for part in _ADDRESS_PARTS) and key.startswith(_OWN)


def common_leaves(addresses: Addresses, bus: BusSettings) -> dict[str, str]:
    """Return every key of the common configuration with its text, the ready flag included."""
    tree = {
        "all-services": _all_services(addresses, bus),
        "app-services": _app_services(addresses),
        "device-services": _device_services(addresses),
    }
    return dict(flat(tree, COMMON)) | {READY_KEY: "true"}


def service_config(
    key: str, port: int, addresses: Addresses, bus: BusSettings | None = None,
    own_writable: Mapping[str, Any] | None = None, **own: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return a core service's configuration before anybody changed it, secrets left out.

    Args:
        key: the service key.
        port: where it listens.
        addresses: of all core services.
        bus: how EdgeX speaks here; None: by default.
        own_writable: what the service adds to the common `Writable`.
        own: its sections beside the common ones.
    """
    common = _all_services(addresses, bus or BusSettings())
    service = common["Service"] | {
        "Host": addresses.host,
        "Port": port,
        "StartupMsg": f"EdgeX {key} {VERSION}, embedded",
    }
    message_bus = common["MessageBus"] | {"Disabled": False}
    message_bus["Optional"] = message_bus["Optional"] | {"ClientId": key}
    clients = {"core-metadata": _client(addresses)} if key != "core-metadata" else {}
    return {
        "Clients": clients,
        "MessageBus": message_bus,
        "Registry": common["Registry"],
        "Service": service,
        "Writable": merge({"LogLevel": "INFO", "Telemetry": {"Tags": {}}}, common["Writable"], own_writable or {}),
    } | own


def _client(addresses: Addresses) -> dict[str, Any]:
    return {
        "Host": addresses.host,
        "Port": addresses.metadata,
        "Protocol": "http",
        "SecurityOptions": {"Mode": "", "OpenZitiController": "openziti:1280"},
    }


def _message_bus(addresses: Addresses, bus: BusSettings) -> dict[str, Any]:
    broker = urlsplit(bus.nats_url)
    port = addresses.mqtt_port if bus.edgex_bus == "mqtt" else broker.port or 4222
    return {
        "Type": bus.edgex_bus,
        "Protocol": "tcp",
        "Host": broker.hostname or "127.0.0.1",
        "Port": port,
        "AuthMode": "none",
        "SecretName": "mqtt-bus",
        "BaseTopicPrefix": bus.edgex_base,
        "Optional": {
            "Qos": "0",
            "KeepAlive": "10",
            "Retained": "false",
            "AutoReconnect": "true",
            "ConnectTimeout": "5",
            "SkipCertVerify": "false",
            "RetryOnFailedConnect": "true",
            "Format": "json" if bus.edgex_bus == "mqtt" else bus.edgex_format or "nats",
            "QueueGroup": "",
            "Durable": "",
            "Subject": f"{bus.edgex_base}/#",
            "AutoProvision": "true",
            "Deliver": "new",
            "DefaultPubRetryAttempts": "2",
        },
    }


def _all_services(addresses: Addresses, bus: BusSettings) -> dict[str, Any]:
    return {
        "Writable": {
            "Telemetry": {
                "Interval": "30s",
                "Metrics": {
                    "SecuritySecretsRequested": False,
                    "SecuritySecretsStored": False,
                    "SecurityRuntimeSecretTokenDuration": False,
                    "SecurityGetSecretDuration": False,
                },
            },
        },
        "Service": {
            "HealthCheckInterval": "10s",
            "ServerBindAddr": "",
            "MaxResultCount": 1024,
            "MaxRequestSize": 0,
            "RequestTimeout": "5s",
            "EnableNameFieldEscape": False,
            "CORSConfiguration": {
                "EnableCORS": False,
                "CORSAllowCredentials": False,
                "CORSAllowedOrigin": "https://localhost",
                "CORSAllowedMethods": "GET, POST, PUT, PATCH, DELETE",
                "CORSAllowedHeaders": "Authorization, Content-Type, X-Correlation-ID",
                "CORSExposeHeaders": "Content-Type, X-Correlation-ID",
                "CORSMaxAge": 3600,
            },
            "SecurityOptions": {"Mode": "", "OpenZitiController": "openziti:1280"},
        },
        "Registry": {"Host": addresses.host, "Port": addresses.keeper, "Type": "keeper"},
        "MessageBus": _message_bus(addresses, bus),
    }


def _app_services(addresses: Addresses) -> dict[str, Any]:
    metrics = (
        "MessagesReceived", "InvalidMessagesReceived", "PipelineMessagesProcessed", "PipelineMessageProcessingTime",
        "PipelineProcessingErrors", "HttpExportSize", "HttpExportErrors", "MqttExportSize", "MqttExportErrors",
        "StoreForwardQueueSize",
    )  # fmt: skip
    return {
        "Writable": {
            "StoreAndForward": {"Enabled": False, "RetryInterval": "5m", "MaxRetryCount": 10},
            "Telemetry": {"Metrics": dict.fromkeys(metrics, False)},
        },
        "Clients": {"core-metadata": _client(addresses)},
        "Trigger": {"Type": "edgex-messagebus", "SubscribeTopics": "events/#"},
    }


def _device_services(addresses: Addresses) -> dict[str, Any]:
    metrics = ("EventsSent", "ReadingsSent", "LastConnected")
    return {
        "Writable": {
            "Reading": {"ReadingUnits": True},
            "Telemetry": {"Metrics": dict.fromkeys(metrics, False)},
        },
        "Clients": {"core-metadata": _client(addresses)},
        "Device": {
            "DataTransform": True,
            "MaxCmdOps": 128,
            "MaxCmdValueLen": 256,
            "ProfilesDir": "./res/profiles",
            "DevicesDir": "./res/devices",
            "EnableAsyncReadings": True,
            "AsyncBufferSize": 16,
            "Discovery": {"Enabled": False, "Interval": "0s"},
            "AutoEvents": {"SendChangedReadingsOnly": False},
        },
        "MaxEventSize": 0,
    }
