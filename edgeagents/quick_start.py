"""Imported first, for its effect, by each service's `__main__`: what is imported after it takes less time and memory.

For processes of ours alone: nobody who imports the library for something else finds others' packages changed by it.

Source: pydantic, `ConfigDict.defer_build`; docs/load.md for what it saves.
"""

import gc
import sys
from types import ModuleType
from typing import Any

import pydantic

# Nothing that is imported can be freed: looking for it is a tenth of a start. `run_service` switches it on again.
gc.disable()
# A model's validator is made when it is first used, not when its class is: FastAPI's description of an API, settings of
# others, messages that only other services send are never used. That each of ours can be made, a test says.
pydantic.BaseModel.model_config["defer_build"] = True


class _NoCommandLine(ModuleType):
    """Stands for `uvicorn.main`, which brings click and a command line that no service of ours has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from uvicorn import server

        return getattr(server, name, None)


sys.modules.setdefault("uvicorn.main", _NoCommandLine("uvicorn.main"))
