"""A model folder is what its manifest says, or it is refused before anything of it runs."""

import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError, MalformedMessageError, NotFoundError
from edgeagents.inference.folder import MANIFEST, MOST_MANIFEST_BYTES, entry_of, open_folder
from edgeagents.inference.onnx_file import _WAYS, external_files
from tests.unit.inference.graphs import constant_inside, linear


def rewritten(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def test_a_folder_opens_as_it_was_written(tmp_path: Path) -> None:
    found = open_folder(linear(tmp_path, external="weights.bin"))
    assert sorted(found.manifest.files) == ["model.onnx", "weights.bin"]
    assert found.graph("model.onnx") == tmp_path / "model.onnx"
    assert open_folder(tmp_path, found.digest).digest == found.digest
    with pytest.raises(InvalidInputError, match="another model"):
        open_folder(tmp_path, "0" * 64)


@pytest.mark.parametrize("file", ["model.onnx", "weights.bin"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone", "linked"])
def test_a_file_that_is_not_as_its_manifest_says_is_named(tmp_path: Path, file: str, how: str) -> None:
    linear(tmp_path, external="weights.bin")
    place = tmp_path / file
    data = place.read_bytes()
    match how:
        case "changed":
            place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case "cut":
            place.write_bytes(data[:-1])
        case "gone":
            place.unlink()
        case "linked":
            place.rename(tmp_path / "elsewhere")
            place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match=file):
        open_folder(tmp_path)


def test_a_manifest_is_a_plain_file_of_bounded_length(tmp_path: Path) -> None:
    manifest = linear(tmp_path) / MANIFEST
    content = manifest.read_bytes()
    manifest.rename(tmp_path / "elsewhere")
    manifest.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="no plain file"):
        open_folder(tmp_path)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(InvalidInputError, match="no plain file"):
        open_folder(tmp_path)
    manifest.unlink()
    manifest.write_bytes(content + b" " * MOST_MANIFEST_BYTES)
    with pytest.raises(InvalidInputError, match="larger than"):
        open_folder(tmp_path)


@pytest.mark.parametrize("how", ["written", "replaced", "linked", "gone"])
def test_a_file_that_changes_after_it_was_checked_is_not_read(tmp_path: Path, how: str) -> None:
    found = open_folder(linear(tmp_path, external="weights.bin"))
    place, other = tmp_path / "weights.bin", tmp_path / "elsewhere"
    other.write_bytes(place.read_bytes())
    match how:
        case "written":
            place.write_bytes(bytes(len(place.read_bytes())))
        case "replaced":
            other.rename(place)
        case "linked":
            place.unlink()
            place.symlink_to(other)
        case "gone":
            place.unlink()
    for ask in (lambda: found.file("weights.bin"), found.check_unchanged):
        with pytest.raises(InvalidInputError, match=r"weights\.bin: was changed"):
            ask()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "", "..", "a\0b"])
def test_a_manifest_names_only_files_of_its_folder(tmp_path: Path, name: str) -> None:
    linear(tmp_path)
    rewritten(tmp_path, files={name: entry_of(tmp_path / "model.onnx").model_dump()})
    with pytest.raises(InvalidInputError, match="no name of a file"):
        open_folder(tmp_path)


@pytest.mark.parametrize("external", ["/etc/hostname", "../weights.bin", "other.bin", "", "\x00"])
def test_a_graph_that_wants_tensors_from_elsewhere_is_refused(tmp_path: Path, external: str) -> None:
    linear(tmp_path, external="weights.bin")
    (tmp_path / "model.onnx").write_bytes(constant_inside(external))
    (tmp_path / "other.bin").write_bytes(b"1234")
    rewritten(tmp_path, files={"model.onnx": entry_of(tmp_path / "model.onnx").model_dump()})
    with pytest.raises(InvalidInputError, match="which is no file of this model"):
        open_folder(tmp_path).graph("model.onnx")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 1, "name": "x", "files": {"a": {"sha256": "zz"}}}', "[" * 5000]
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InvalidInputError, match="not a manifest"):
        open_folder(tmp_path)


def test_a_newer_format_and_no_folder_at_all_say_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="make model"):
        open_folder(tmp_path)
    linear(tmp_path)
    rewritten(tmp_path, format=2)
    with pytest.raises(InvalidInputError, match="format 2"):
        open_folder(tmp_path)


@given(st.integers(0, 10_000), st.binary(max_size=8))
def test_whatever_an_onnx_file_was_changed_into_it_is_read_or_refused(place: int, data: bytes) -> None:
    whole = constant_inside("weights.bin")
    place %= len(whole)
    changed = whole[:place] + data + whole[place + len(data) :]
    try:
        external_files(changed)
    except MalformedMessageError:
        return


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def field(tag: int, content: bytes) -> bytes:
    return varint(tag) + varint(len(content)) + content


@pytest.mark.parametrize("tag", [1 << 32 | 42, 1 << 35 | 42, 1 << 63 | 42, 2, 0], ids=hex)
def test_a_field_whose_number_readers_cut_to_another_one_is_refused(tag: int) -> None:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="elsewhere.bin")
    assert external_files(field(58, field(42, tensor.SerializeToString()))) == {"elsewhere.bin"}
    with pytest.raises(MalformedMessageError) as refused:
        external_files(field(58, field(tag, tensor.SerializeToString())))
    assert refused.value.cause_kind == "not-onnx"


def test_all_ways_to_a_tensor_that_the_format_has_are_walked() -> None:
    ways, waiting = dict[str, dict[int, str]](), [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        if (kind := waiting.pop()).name not in ways:
            inner = [(part.number, part.message_type) for part in kind.fields if part.message_type]
            ways[kind.name] = {number: message.name for number, message in inner}
            waiting += [message for _, message in inner]
    leading, more = set[str](), {"TensorProto"}
    while more - leading:
        leading |= more
        more = {kind for kind, parts in ways.items() if leading & set(parts.values())}
    words = {
        "ModelProto": "model", "TrainingInfoProto": "training", "FunctionProto": "function", "GraphProto": "graph",
        "NodeProto": "node", "AttributeProto": "attribute", "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip
    expected = {
        words[kind]: {number: words[part] for number, part in ways[kind].items() if part in leading}
        for kind in leading - {"TensorProto"}
    }
    assert {kind: parts for kind, parts in _WAYS.items() if kind != "tensor"} == expected


def test_a_function_that_gives_an_attribute_a_tensor_is_looked_into() -> None:
    tensor = onnx.TensorProto(name="c", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="given.bin")
    given = onnx.helper.make_attribute("value", tensor)
    model = onnx.ModelProto(functions=[onnx.FunctionProto(name="f", attribute_proto=[given])])
    assert external_files(model.SerializeToString()) == {"given.bin"}


def test_a_graph_of_no_bytes_names_no_files(tmp_path: Path) -> None:
    linear(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    rewritten(tmp_path, files={"model.onnx": entry_of(tmp_path / "model.onnx").model_dump()})
    assert open_folder(tmp_path).graph("model.onnx") == tmp_path / "model.onnx"


def test_names_of_files_are_found_wherever_a_tensor_can_be() -> None:
    assert external_files(constant_inside("deep.bin")) == {"deep.bin"}
    for end in (1, 7, 40):
        with pytest.raises(MalformedMessageError):
            external_files(constant_inside("deep.bin")[:-end])
    with pytest.raises(MalformedMessageError):
        external_files(b"\xff" * 40)
