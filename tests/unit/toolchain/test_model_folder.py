"""A folder takes its target's place as a whole; whatever fails, what was there stays."""

from pathlib import Path

import pytest

from edgeagents.errors import ConflictError, StoreError
from edgeagents.inference.folder import write_manifest
from toolchain.model_folder import new_folder


def make(target: Path, content: str) -> None:
    """Make a model folder of one file."""
    with new_folder(target) as folder:
        (folder / "model.onnx").write_text(content)
        write_manifest(folder, "tiny", {})


def test_nothing_is_at_the_target_until_all_is_written(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a/model") as folder:
        (folder / "model.onnx").write_text("x")
        assert not (tmp_path / "a/model").exists()
    assert (tmp_path / "a/model/model.onnx").read_text() == "x"


def test_what_was_there_is_put_back_when_its_place_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "model", "first")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(StoreError, match="no room"):
        make(tmp_path / "model", "second")
    assert (tmp_path / "model/model.onnx").read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_an_interrupted_import_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "model") as folder:
            (folder / "model.onnx").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_file_more_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path / "model", "first")
    (tmp_path / "model/notes.txt").write_text("mine")
    with pytest.raises(ConflictError):
        make(tmp_path / "model", "second")
    assert (tmp_path / "model/notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/model could not be written"):
        make(tmp_path / "file/model", "first")
