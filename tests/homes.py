"""What tests of whole homes share: a copy of the owner's files in which agents may dim the lamps."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import yaml

HOME: Final = Path(__file__).resolve().parents[1] / "edgex-profiles" / "home"
LAMPS: Final[dict[str, Any]] = {"profile": "Light", "resource": "Brightness"}
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


def home_with_lamps(folder: Path, agents: Iterable[dict[str, Any]] = ()) -> Path:
    """Return a new copy of the home's files in `folder`, in which agents may dim the lamps, with some agents more."""
    shutil.copytree(HOME, folder)
    edit(folder / "site.yaml", _permit_lamps)
    for agent in agents:
        (folder / "agents" / f"{agent['name']}.yaml").write_text(yaml.safe_dump(agent))
    return folder


def edit(file: Path, change: Callable[[Any], None]) -> None:
    """Change what a YAML file holds, in place."""
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))


def _permit_lamps(site: Any) -> None:
    rule = {**LAMPS, "risk_class": "A", "kind": "absolute"}
    site["resources"].append({**rule, "proof": {"resource": LAMPS["resource"], "wait": "3s"}})
