"""The one file of weights that all graphs of a model share, as ONNX external data.

Source: ONNX IR specification, section "External Tensor Data".
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from onnx.helper import np_dtype_to_tensor_dtype

from edgeagents.errors import ConflictError

NAME = "model.onnx.data"
ALIGNMENT = 4096  # pages: a tensor can be mapped as it lies


class WeightsFile:
    """Writes tensors behind each other; each name once. A context manager: the file is whole when it ends."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / NAME).open("xb")
        self._stored: dict[str, TensorProto] = {}

    def __enter__(self) -> "WeightsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """Write a tensor and return its name; graphs that use it get it by `tensors`."""
        if name in self._stored:
            raise ConflictError(f"weights {name!r} are there already: two tensors of one model share a name")
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        entry = TensorProto(name=name, data_type=np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        entry.data_location = TensorProto.EXTERNAL
        _say_where(entry, self._file.tell(), array.nbytes)
        self._file.write(np.ascontiguousarray(array).data)
        self._stored[name] = entry
        return name

    def share(self, name: str, other: str, dims: Sequence[int]) -> str:
        """Name the bytes of another tensor once more, with other dimensions, and return the new name."""
        entry = TensorProto()
        entry.CopyFrom(self._stored[other])
        entry.name = name
        entry.ClearField("dims")
        entry.dims.extend(dims)
        self._stored[name] = entry
        return name

    def tensors(self, names: set[str]) -> list[TensorProto]:
        """Return those of the names that were written here, in the order in which they were."""
        return [entry for name, entry in self._stored.items() if name in names]


def _say_where(entry: TensorProto, offset: int, length: int) -> None:
    for key, value in (("location", NAME), ("offset", str(offset)), ("length", str(length))):
        entry.external_data.add(key=key, value=value)
