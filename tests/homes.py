"""What tests of whole homes share."""

from typing import Any, Final

# A home that goes on as it was left may have nothing to do: an agent with this rule never is done.
NEVER_DONE: Final[dict[str, Any]] = {
    "name": "dim",
    "given": {"co2": "sensor-office/CO2"},
    "when": "co2 > 0.0",
    "set": {
        "device": "light-office",
        "resource": "Brightness",
        "value": "=double(int(time.hour * 60.0) % 90 + 1)",
    },
    "because": "there is always something to do",
}
