"""Runs the graphs of a model folder step by step, with one cache that past and present share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Floats = npt.NDArray[np.float32]


class Steps:
    """One graph and its cache for a batch of rows."""

    def __init__(self, folder: Path, graph: str = "model-all.onnx", *, rows: int = 1, capacity: int = 64) -> None:
        config = json.loads((folder / "config.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(folder / graph, options, providers=["CPUExecutionProvider"])
        self.wants_last = graph == "model.onnx"
        self.filled = np.zeros(rows, np.int64)
        self.binding = self.session.io_binding()
        self.binding.bind_output("logits", "cpu")  # first among the outputs
        shape = (rows, config["kv_heads"], capacity, config["head_dim"])
        for number in range(config["layers"]):
            for kind in ("key", "value"):
                cache = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
                self.binding.bind_ortvalue_input(f"past_key_values.{number}.{kind}", cache)
                self.binding.bind_ortvalue_output(f"present.{number}.{kind}", cache)

    def step(self, *rows: Sequence[int]) -> Floats:
        """Return the logits after a step of these tokens of each row, (rows, positions, vocab); no tokens: idle."""
        lengths = np.array([len(row) for row in rows])
        longest = max(lengths)
        self.filled += lengths
        ids = np.array([[*row, *[0] * (longest - len(row))] for row in rows], np.int64)
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "query_seqlens": lengths.astype(np.int32),
            "seqlens_k": (self.filled - 1).astype(np.int32),
            "total_sequence_length": np.array(max(self.filled.max(), longest), np.int32),
        }
        if self.wants_last:
            inputs["last"] = np.maximum(lengths - 1, 0)
        for name, value in inputs.items():
            self.binding.bind_cpu_input(name, value)
        self.binding.bind_output("logits", "cpu")  # anew: what was bound keeps the shape of the step before
        self.session.run_with_iobinding(self.binding)
        logits: Floats = self.binding.get_outputs()[0].numpy()
        return logits
