"""What is built late is right all the same, and nobody who only imports the library is surprised."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

import edgeagents
import services

SERVICES = ("agent", "coordinator", "guard", "inference", "world")


def test_every_model_of_ours_can_be_built_and_who_imports_the_library_finds_pydantic_as_it_was() -> None:
    """Built late, a wrong one would be told when it is first used."""
    for package in (edgeagents, services):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__") and found.name != "edgeagents.quick_start":
                importlib.import_module(found.name)
    assert "edgeagents.quick_start" not in sys.modules, "services alone begin with it"
    assert not pydantic.BaseModel.model_config
    waiting, ours = [pydantic.BaseModel], 0
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        if model.__module__.split(".")[0] in ("edgeagents", "services"):
            assert model.model_rebuild(force=True), model
            ours += 1
    assert ours > 60


def test_a_service_has_uvicorns_server_and_not_its_command_line() -> None:
    code = (
        "from edgeagents import quick_start\nimport gc, sys, uvicorn\n"
        "from edgeagents.adapters.serving import WebServer\n"
        "assert issubclass(WebServer, uvicorn.Server) and uvicorn.Server.__module__ == 'uvicorn.server'\n"
        "from edgeagents.adapters import bootstrap\n"
        "assert 'click' not in sys.modules and not gc.isenabled()\n"
        "bootstrap._settle()\nassert gc.isenabled() and gc.get_freeze_count() > 10_000"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=110)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_begins_with_it(name: str) -> None:
    text = (Path(services.__path__[0]) / name / "__main__.py").read_text()
    served = text[text.index("quick_start") - len("from edgeagents import ") :]
    assert "gc." not in text, "it is done there"
    assert served.startswith("from edgeagents import quick_start")
    assert "services." in served, "what serves is imported after it"
    assert "edgeagents.adapters" not in text[: len(text) - len(served)]
