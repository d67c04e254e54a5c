"""One ONNX model, loaded safely, with named inputs and outputs: whatever it does, it is asked the same way.

    session = Session(open_folder(path), "model.onnx")
    answer = session.run({"image": pixels})["scores"]

Classification, regression, embeddings, images, audio: arrays in, arrays out, of the types and shapes the model states.
Outputs that the manifest gives a scale come as real numbers. Language models go on from here (`language.py`).

Source: onnxruntime `InferenceSession`; ONNX DequantizeLinear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeagents.errors import InvalidInputError, UnavailableError
from edgeagents.inference import machine
from edgeagents.inference.folder import ModelFolder

MOST_RUN_BYTES: Final = 256 << 20  # of inputs in one call
HEADROOM: Final = 1.5  # memory for a model, as a multiple of its files: weights are packed anew while they are loaded
_TYPES: Final[Mapping[str, type[Any]]] = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(int16)": np.int16, "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32, "tensor(uint32)": np.uint32, "tensor(int64)": np.int64, "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip
# onnxruntime has no common base for what it raises.
ORT_ERRORS: Final[tuple[type[Exception], ...]] = (RuntimeError, ValueError, *(
    error for error in vars(ort.capi.onnxruntime_pybind11_state).values()
    if isinstance(error, type) and issubclass(error, Exception)
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model.

    Args:
        name: as the graph has it.
        dtype: of its elements.
        shape: a number where it is fixed, a name where it is free, the same name for the same size.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.name}[{', '.join(map(str, self.shape))}]"


class Session:
    """A loaded model. One thread at a time should run it; it computes with `threads` of them."""

    def __init__(self, folder: ModelFolder, graph: str = "model.onnx", *, threads: int = 0, spins: bool = True) -> None:
        """Load a graph of a folder.

        Args:
            folder: a model whose files were checked.
            graph: name of its ONNX file.
            threads: that compute; 0: as many as the container may use CPUs.
            spins: they wait for each other by spinning: a third faster, and wasteful where CPUs are shared.

        Raises:
            InvalidInputError: it is no model that can be run here.
            UnavailableError: there is not enough memory.
        """
        self.folder = folder
        self.threads = threads or machine.cpus()
        _has_room(folder)  # first: walking the graph is work, too
        file = folder.graph(graph)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
        options.enable_mem_pattern = False  # it keeps one for each size of input that ever came
        options.log_severity_level = 3
        try:
            self.ort = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self.inputs = _ports(self.ort.get_inputs())
            self.outputs = _ports(self.ort.get_outputs())
            self.metadata: Mapping[str, str] = dict(self.ort.get_modelmeta().custom_metadata_map)
        except MemoryError as error:
            raise UnavailableError(f"model {file}: no memory left to load it") from error
        except ORT_ERRORS as error:
            raise InvalidInputError(f"model {file}: cannot be loaded: {_short(error)}") from error
        except KeyError as error:
            raise InvalidInputError(f"model {file}: has an input or output of type {error}: not supported") from error
        folder.check_unchanged()  # onnxruntime opened the files by their names, after they were checked
        for name in folder.manifest.outputs:
            if (port := self.outputs.get(name)) is None or not np.issubdtype(port.dtype, np.integer):
                raise InvalidInputError(f"model {folder.path}: a scale is given for {name!r}, no output of integers")

    def expect(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        """Check that the graph has these, named, typed and shaped so; free sizes may have any name.

        Raises:
            InvalidInputError: it has others, or lacks one.
        """
        for what, wanted, found in (("input", inputs, self.inputs), ("output", outputs, self.outputs)):
            if missing := [str(port) for port in wanted if not _like(found.get(port.name), port)]:
                names = ", ".join(map(str, found.values()))
                raise InvalidInputError(f"model {self.folder.path}: has no {what} {missing[0]}; it has {names[:400]}")
            if extra := set(found) - {port.name for port in wanted}:
                raise InvalidInputError(f"model {self.folder.path}: has an unexpected {what} {sorted(extra)[0]!r}")

    def run(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """Return all outputs for named inputs, those with a scale in the manifest as float32: (value - zero) * scale.

        Raises:
            InvalidInputError: a name, type or shape is not the model's, or the model cannot compute with these values.
        """
        arrays = self._checked(inputs)
        try:
            found = self.ort.run(list(self.outputs), arrays)
        except ORT_ERRORS as error:
            raise InvalidInputError(f"model {self.folder.manifest.name}: {_short(error)}") from error
        scales = self.folder.manifest.outputs
        return {
            name: dequantised(value, scales[name].scale, scales[name].zero_point) if name in scales else value
            for name, value in zip(self.outputs, found, strict=True)
        }

    def _checked(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        if unknown := set(inputs) - set(self.inputs):
            names = ", ".join(map(str, self.inputs.values()))
            raise InvalidInputError(f"no input {sorted(unknown)[0]!r}: the model has {names[:400]}")
        arrays, sizes = {}, dict[str, int]()
        for port in self.inputs.values():
            if port.name not in inputs:
                raise InvalidInputError(f"input {port} is missing")
            arrays[port.name] = array = np.asarray(inputs[port.name])
            if array.dtype != port.dtype:
                raise InvalidInputError(f"input {port} got {array.dtype.name}")
            _check_shape(port, array.shape, sizes)
        if sum(array.nbytes for array in arrays.values()) > MOST_RUN_BYTES:
            raise InvalidInputError(f"inputs of more than {MOST_RUN_BYTES >> 20} MiB in one call")
        return arrays


def dequantised(values: npt.NDArray[Any], scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """Return the real numbers that integers stand for: (values - zero_point) * scale, shaped like `values`."""
    return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)


def _check_shape(port: Port, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    if len(shape) != len(port.shape):
        raise InvalidInputError(f"input {port} got {len(shape)} dimensions: {list(shape)}")
    for wanted, size in zip(port.shape, shape, strict=True):
        known = sizes.setdefault(wanted, size) if isinstance(wanted, str) and wanted else wanted
        if isinstance(known, int) and known != size:
            raise InvalidInputError(f"input {port} got shape {list(shape)}: {wanted} is {known}")


def _ports(found: Sequence[Any]) -> dict[str, Port]:
    ports = {}
    for item in found:
        # What has no name is free by itself: two such sizes need not be the same.
        shape = tuple(
            size if isinstance(size, int) else size or f"{item.name}.{axis}" for axis, size in enumerate(item.shape)
        )
        ports[item.name] = Port(item.name, np.dtype(_TYPES[item.type]), shape)
    return ports


def _like(found: Port | None, wanted: Port) -> bool:
    if found is None or found.dtype != wanted.dtype or len(found.shape) != len(wanted.shape):
        return False
    pairs = zip(found.shape, wanted.shape, strict=True)
    return all(isinstance(is_, str) if isinstance(should, str) else is_ == should for is_, should in pairs)


def _has_room(folder: ModelFolder) -> None:
    wanted = HEADROOM * sum(entry.size_bytes for entry in folder.manifest.files.values())
    free = machine.free_memory_bytes()
    if wanted > free:
        raise UnavailableError(
            f"model {folder.path}: needs some {wanted / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free: "
            "a smaller model, or a higher memory limit"
        )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
