"""What an agent's file names and core-metadata does not know yet: waited for, said once, and said when it is there.

An agent works on with what is there. Only a file that contradicts a device there is ends it (`app.py`) or, once it
runs, has the guard refuse its session, which is said here, too.

Source: design.md section 3; issue 6, "Bad input".
"""

import logging

from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.model.agent import AgentDefinition
from edgeagents.protocol.fitting import absences, file_problems

log = logging.getLogger(__name__)


class Absences:
    """Looks again whenever devices change."""

    def __init__(self, agent: AgentDefinition, source: str, devices: DeviceCache) -> None:
        """Prepare; `source` names the agent's file in the log."""
        self._agent = agent
        self._source = source
        self._devices = devices
        self._problems: set[str] = set()
        self.waited_for: tuple[str, ...] = ()

    def look(self) -> None:
        """Say what is missing now and was not before, and what has come since."""
        devices = self._devices.devices_by_name
        found = absences(self._agent, devices)
        new = [text for text in found if text not in self.waited_for]
        come = [text for text in self.waited_for if text not in found]
        if new:
            log.warning(
                "%s: waiting for %s: not in core-metadata (yet); add it there, or correct the file",
                self._source, ", ".join(new),
            )  # fmt: skip
        if come:
            log.info("%s: there now: %s", self._source, ", ".join(come))
        self.waited_for = tuple(found)
        problems = set(file_problems(self._agent, devices, self._devices.profiles_by_name))
        for problem in sorted(problems - self._problems):
            log.error("%s: %s: the guard refuses this agent until file or device is corrected", self._source, problem)
        self._problems = problems
