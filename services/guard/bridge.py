"""EdgeX's own MQTT broker, where a site keeps one: the guard carries what it says into our NATS.

Source: design.md sections 2 and 4.
"""

from typing import Final

from edgeagents.adapters.bootstrap import EdgexService
from edgeagents.adapters.bus_credentials import bus_login
from edgeagents.adapters.mqtt import MqttTransport
from edgeagents.adapters.mqtt_bridge import MqttBridge, MqttSettings

METRICS: Final = ("GuardBridged", "GuardBridgeGaps")


async def bridge_of(service: EdgexService, settings: MqttSettings) -> MqttBridge | None:
    """Return the bridge that `EDGEAGENTS_MQTT_URL` asks for, ready to run; None when it asks for none.

    Raises:
        ConfigurationError: no such address, or `MessageBus` asks for a secret that is not there.
        UnavailableError: the secret store does not answer.
    """
    if not settings.url:
        return None
    login = await bus_login(service.config, service.secrets, is_secure=service.options.secret_store is not None)

    def connection() -> MqttTransport:
        name = f"{service.key}-bridge-{service.settings.gateway}"
        return MqttTransport(
            settings.url, name, user=login.user, password=login.password, tls=login.tls, qos=1, pending=settings.pending
        )

    connection()  # tells at once of an address that is none
    bridge = MqttBridge(service.bus, connection, service.edgex.base)
    service.metrics.counter(METRICS[0], read=lambda: bridge.counts["stored"] + bridge.counts["passed-on"])
    service.metrics.counter(METRICS[1], read=lambda: bridge.gaps)
    return bridge
