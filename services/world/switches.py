"""The switches on the wall: what people do by hand in the house, past core-command and past the guard.

The value changes as the device service's driver would change it, whatever locks EdgeX has on the device. It is
written into the journal as `hand`, no event is made of it: EdgeX learns of it by the auto events, as of any switch.

Source: design.md section 3.8, "the owner wins".
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from edgeagents.adapters.device_commands import Options, plan_write
from edgeagents.adapters.device_service import Driver
from edgeagents.adapters.transforms import parameter_text
from edgeagents.errors import NotFoundError
from edgeagents.journal import Journal
from edgeagents.model.device import Device, Profile

log = logging.getLogger(__name__)


class Switched(BaseModel):
    """What somebody set by hand; `value` as EdgeX writes it, `21.5` or `"21.5"`."""

    device: str = Field(min_length=1, max_length=512)
    resource: str = Field(min_length=1, max_length=512)
    value: str | bool | int | float


async def switch(driver: Driver, device: Device, profile: Profile, switched: Switched, journal: Journal) -> str:
    """Set a resource by hand and return its new value as text; stored when this returns.

    Raises:
        NotFoundError: the device has no such resource.
        NotAllowedError: there is nothing to set about it.
        InvalidInputError: no value of its type, or outside what it can be set to.
        StoreError: the state of the house cannot be written; it is unchanged.
    """
    name, resource = device.name, switched.resource
    if profile.resource(resource) is None:
        raise NotFoundError(f"device {name} has no resource {resource!r}: see profile {profile.name}")
    writes = plan_write(profile, name, resource, {resource: parameter_text(switched.value)}, Options())
    received_ns = time.time_ns()
    await driver.write(device, [(write.resource, write.raw) for write in writes], "")
    text = parameter_text(writes[0].shown)
    journal.write("hand", device=name, resource=resource, value=text, received_ns=received_ns, applied=True)
    log.info("%s/%s set to %s by hand", name, resource, text)
    return text


def add_switches(app: FastAPI, driver: Driver, journal: Journal, find: Callable[[str], tuple[Device, Profile]]) -> None:
    """Add the route; `find` returns a device of this house and its profile, or raises NotFoundError."""

    @app.post("/api/v3/world/switch", tags=["world"])
    async def by_hand(switched: Switched) -> dict[str, Any]:
        """Set a resource as somebody in the house does, by hand."""
        value = await switch(driver, *find(switched.device), switched, journal)
        return {
            "apiVersion": "v3", "statusCode": 200, "deviceName": switched.device,
            "resourceName": switched.resource, "value": value,
        }  # fmt: skip
