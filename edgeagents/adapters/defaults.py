"""What EdgeX's common configuration holds, with the types that keeper's text takes, and a service's own part.

Source: common configuration of EdgeX 4.0.2; edgex-wire.md section 3.4.
"""

from typing import Any, Final

from edgeagents.adapters.config import Kind, Tree, merge

_CLIENT: Final[Tree] = {
    "Protocol": "http", "Host": "localhost", "Port": 0, "UseMessageBus": False,
    "SecurityOptions": {"Mode": "", "OpenZitiController": "openziti:1280"},
}  # fmt: skip

_ALL_SERVICES: Final[Tree] = {
    "Writable": {
        "LogLevel": "INFO",
        "InsecureSecrets": {},
        "Telemetry": {
            "Interval": "30s",
            "Metrics": {
                "SecuritySecretsRequested": False,
                "SecuritySecretsStored": False,
                "SecurityRuntimeSecretTokenDuration": False,
                "SecurityGetSecretDuration": False,
            },
            "Tags": {},
        },
    },
    "Service": {
        "Host": "localhost",
        "Port": 0,
        "ServerBindAddr": "",
        "StartupMsg": "",
        "HealthCheckInterval": "10s",
        "RequestTimeout": "5s",
        "MaxRequestSize": 0,
        "MaxResultCount": 1024,
        "EnableNameFieldEscape": False,
        "SecurityOptions": {"Mode": "", "OpenZitiController": "openziti:1280"},
        "CORSConfiguration": {
            "EnableCORS": False,
            "CORSAllowCredentials": False,
            "CORSAllowedOrigin": "https://localhost",
            "CORSAllowedMethods": "GET, POST, PUT, PATCH, DELETE",
            "CORSAllowedHeaders": "Authorization, Accept, Accept-Language, Content-Language, Content-Type, "
            "X-Correlation-ID",
            "CORSExposeHeaders": "Cache-Control, Content-Language, Content-Length, Content-Type, Expires, "
            "Last-Modified, Pragma, X-Correlation-ID",
            "CORSMaxAge": 3600,
        },
    },
    "MessageBus": {
        "Type": "mqtt",
        "Protocol": "tcp",
        "Host": "localhost",
        "Port": 1883,
        "AuthMode": "none",
        "SecretName": "mqtt-bus",
        "BaseTopicPrefix": "edgex",
        "Disabled": False,
        "Optional": {"ClientId": "", "Qos": "0", "KeepAlive": "10", "Retained": "false", "AutoReconnect": "true",
                     "ConnectTimeout": "5", "SkipCertVerify": "false"},
    },
    "HttpServer": {"Protocol": "", "SecretName": "", "HTTPSCertName": "", "HTTPSKeyName": ""},
    "Registry": {"Type": "keeper", "Host": "localhost", "Port": 59890},
    "Clients": {
        "core-metadata": _CLIENT | {"Port": 59881},
        "security-proxy-auth": {"Protocol": "http", "Host": "localhost", "Port": 59842},
    },
}  # fmt: skip

_APP_SERVICES: Final[Tree] = {
    "Writable": {
        "Pipeline": {"ExecutionOrder": "", "TargetType": ""},
        "StoreAndForward": {"Enabled": False, "RetryInterval": "5m", "MaxRetryCount": 10},
        "Telemetry": {
            "Metrics": {
                "MessagesReceived": False,
                "InvalidMessagesReceived": False,
                "PipelineMessagesProcessed": False,
                "PipelineMessageProcessingTime": False,
                "PipelineProcessingErrors": False,
                "HttpExportSize": False,
                "HttpExportErrors": False,
                "MqttExportSize": False,
                "MqttExportErrors": False,
                "StoreForwardQueueSize": False,
            }
        },
    },
    "Clients": {"core-data": _CLIENT | {"Port": 59880}, "core-command": _CLIENT | {"Port": 59882}},
    "Trigger": {"Type": "edgex-messagebus", "SubscribeTopics": "events/#", "PublishTopic": ""},
}

_DEVICE_SERVICES: Final[Tree] = {
    "Writable": {
        "Reading": {"ReadingUnits": True},
        "Telemetry": {"Metrics": {"EventsSent": False, "ReadingsSent": False, "LastConnected": False}},
    },
    "Clients": {"core-data": _CLIENT | {"Port": 59880}, "core-command": _CLIENT | {"Port": 59882}},
    "MaxEventSize": 0,
    "Device": {
        "DataTransform": True,
        "MaxCmdOps": 128,
        "MaxCmdValueLen": 256,
        "ProfilesDir": "./res/profiles",
        "DevicesDir": "./res/devices",
        "EnableAsyncReadings": True,
        "AsyncBufferSize": 16,
        "AutoEvents": {"SendChangedReadingsOnly": False},
        "Discovery": {"Enabled": False, "Interval": "0s"},
    },
}


def common_defaults(kind: Kind) -> Tree:
    """Return what holds where neither keeper nor a file says otherwise."""
    return merge(_ALL_SERVICES, _APP_SERVICES if kind == "app" else _DEVICE_SERVICES)


def private_defaults(key: str, kind: Kind, port: int) -> Tree:
    """Return the part of a private configuration that every service has; it is seeded, so that UI and owner see it."""
    clients: dict[str, Any] = {
        name: {"Protocol": "http", "Host": "localhost", "Port": client_port}
        for name, client_port in (("core-command", 59882), ("core-data", 59880))
    }
    own: Tree = {
        "Writable": {"LogLevel": "INFO"},
        "Service": {"Host": "localhost", "Port": port, "ServerBindAddr": "", "StartupMsg": f"{key} has started"},
        "MessageBus": {"Optional": {"ClientId": key}},
        "Clients": clients,
    }
    if kind == "device":
        return own
    # EdgeX's UI shows and edits what lies below Trigger and Writable/Pipeline.
    page: Tree = {
        "Writable": {"Pipeline": {"ExecutionOrder": "", "TargetType": ""}},
        "Trigger": {"Type": "edgex-messagebus", "PublishTopic": ""},
    }
    return merge(own, page)
