"""A small model's folder with a long context, for tests of what is around a model: what it says means nothing."""

from pathlib import Path

from tests import tiny_llama
from toolchain.export import Form, export

NAME = "tiny"


def tiny_model(folder: Path, context: int = 2048) -> Path:
    """Make a model in a folder and return where it is; its vocabulary is bytes and a few words."""
    source = tiny_llama.write(folder / "tiny.gguf", changes={"llama.context_length": context})
    export(source, folder / NAME, Form())
    return folder / NAME
