"""The very graph that our import makes, put into the layout that onnxruntime-genai runs; same weights, same nodes.

It gives a graph an attention mask and the positions' logits it takes are the last ones: what our loop states directly
(lengths, the wanted position) is computed from the mask here. So the two differ in their loops alone.

Source: onnxruntime-genai's documentation of genai_config.json.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_STATED: Final = ("query_seqlens", "seqlens_k", "total_sequence_length", "last")


def write_genai_folder(ours: Path, folder: Path, *, threads: int, length: int) -> None:
    """Write a folder that onnxruntime-genai runs, made of one of ours."""
    folder.mkdir(parents=True)
    model = onnx.load(str(ours / "model.onnx"), load_external_data=False)
    _state_by_mask(model)
    onnx.save(model, str(folder / "model.onnx"))
    for name in ("model.onnx.data", "tokenizer.json"):
        shutil.copy(ours / name, folder / name)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    config = json.loads((ours / "config.json").read_text())
    (folder / "genai_config.json").write_text(json.dumps(_config(config, threads, length), indent=2))


def _state_by_mask(model: onnx.ModelProto) -> None:
    graph = model.graph
    kept = [item for item in graph.input if item.name not in _STATED]
    del graph.input[:]
    graph.input.extend(kept)
    graph.input.append(helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]))
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":  # its last input; genai gives no row another number of tokens
            while node.input[-1] in ("", "query_seqlens"):
                del node.input[-1]
    nodes = [*_lengths(), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for name, values in (("g.one", [1]), ("g.zero", [0]), ("g.two", [2])):
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))


def _lengths() -> list[NodeProto]:
    """Return what computes lengths and the wanted position once a step."""
    int32 = TensorProto.INT32
    made = helper.make_node
    return [
        made("ReduceSum", ["attention_mask", "g.one"], ["g.held"], keepdims=0),
        made("Sub", ["g.held", "g.one"], ["g.before"]),
        made("Cast", ["g.before"], ["seqlens_k"], to=int32),
        made("Shape", ["attention_mask"], ["g.mask"]),
        made("Slice", ["g.mask", "g.one", "g.two"], ["g.total"]),
        made("Squeeze", ["g.total", "g.zero"], ["g.total_scalar"]),
        made("Cast", ["g.total_scalar"], ["total_sequence_length"], to=int32),
        made("Shape", ["input_ids"], ["g.shape"]),
        made("Slice", ["g.shape", "g.zero", "g.one"], ["g.batch"]),
        made("Slice", ["g.shape", "g.one", "g.two"], ["g.tokens"]),
        made("Sub", ["g.tokens", "g.one"], ["g.wanted"]),
        made("Expand", ["g.wanted", "g.batch"], ["last"]),
    ]


def _config(config: Mapping[str, Any], threads: int, length: int) -> dict[str, Any]:
    end = config["eos_ids"][0]
    return {
        "model": {
            "bos_token_id": end, "eos_token_id": config["eos_ids"], "pad_token_id": end,
            "context_length": length, "type": "llama", "vocab_size": config["vocab"],
            "decoder": {
                "filename": "model.onnx", "head_size": config["head_dim"], "hidden_size": config["width"],
                "num_attention_heads": config["heads"], "num_hidden_layers": config["layers"],
                "num_key_value_heads": config["kv_heads"],
                "session_options": {"intra_op_num_threads": threads, "provider_options": []},
                "inputs": {
                    "input_ids": "input_ids", "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key", "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"do_sample": False, "max_length": length, "past_present_share_buffer": True},
    }  # fmt: skip
