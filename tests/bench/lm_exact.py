"""How exact engines are: next-token distributions against 32-bit arithmetic on the very weights of the file.

    make bench-lm-exact ARGS="--tokens 2048"

The reference is the shipped file's own weights, dequantised, multiplied in float32 with float32 activations. Text is
Debian's reference manual, English and Chinese, in windows; every position but a window's first ones counts. KL is
Kullback-Leibler divergence of an engine from the reference, in nats. The last line is JSON.

Source: KL divergence as llama.cpp's `perplexity --kl-divergence` reports it.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import edgeagents.inference  # noqa: F401  # telemetry off
from edgeagents.inference.folder import ModelFolder, open_folder
from edgeagents.inference.language import Vocabulary, read_config
from tests.bench.lm import PLACE, ROOT, runners
from tests.bench.lm_engines import LlamaCpp
from toolchain.sources import SMOLLM2, source_file

WINDOW: Final = 256
SKIPPED: Final = 8  # positions at the beginning of a window, where anything may follow
PACKAGES: Final = {"english": "debian-reference-en", "chinese": "debian-reference-zh-cn"}
KL_GOAL: Final = 1e-3
Logits = npt.NDArray[np.float32]


def text_of(language: str, console: Console) -> str:
    """Return a manual as text; its package is fetched with apt at the first run, and not installed."""
    folder = PLACE / "text" / language
    if not folder.exists():
        console.print(f"fetching {PACKAGES[language]} …")
        folder.mkdir(parents=True)
        subprocess.run(["apt-get", "download", "-q", PACKAGES[language]], check=True, cwd=folder)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    files = sorted(folder.rglob("*.txt.gz"), key=lambda file: -file.stat().st_size)
    if not files:
        raise SystemExit(f"no text in {folder}: remove it and run again")
    import gzip

    return gzip.decompress(files[0].read_bytes()).decode(errors="ignore")


def windows(vocabulary: Vocabulary, text: str, tokens: int) -> list[list[int]]:
    """Return the middle of a text as windows of tokens."""
    found = vocabulary.encode(text[len(text) // 3 : len(text) // 3 + 12 * tokens])[:tokens]
    return [found[at : at + WINDOW] for at in range(0, len(found), WINDOW)]


class Onnx:
    """All logits of a window by a folder's `model-all.onnx`."""

    def __init__(self, folder: ModelFolder, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.session = ort.InferenceSession(
            str(folder.graph("model-all.onnx")), options, providers=["CPUExecutionProvider"]
        )
        config = read_config(folder)
        shape = (1, config.kv_heads, WINDOW, config.head_dim)
        self.memory = {
            f"past_key_values.{layer}.{part}": np.zeros(shape, np.float32)
            for layer in range(config.layers) for part in ("key", "value")
        }  # fmt: skip

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Return what follows each token, shape (tokens, vocab)."""
        count = len(tokens)
        found: list[Any] = self.session.run(["logits"], {
            "input_ids": np.array([tokens], np.int64), "query_seqlens": np.array([count], np.int32),
            "seqlens_k": np.array([count - 1], np.int32), "total_sequence_length": np.array(count, np.int32),
            **self.memory,
        })  # fmt: skip
        logits: Logits = found[0][0]
        return logits


class Llama(LlamaCpp):
    """All logits of a window by llama.cpp."""

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Return what follows each token, shape (tokens, vocab)."""
        lib, vocab = self.library, 49_152
        lib.llama_memory_seq_rm(self.memory, 0, 0, -1)
        self._run([(token, at, 0, True) for at, token in enumerate(tokens)])
        lib.llama_get_logits.restype, lib.llama_get_logits.argtypes = ctypes.POINTER(ctypes.c_float), [ctypes.c_void_p]
        found = np.ctypeslib.as_array(lib.llama_get_logits(self.context), (len(tokens), vocab))
        logits: Logits = found.copy()
        return logits


def divergence(reference: Logits, found: Logits) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return KL of each position, nats, and whether the likeliest token is the same."""
    p, q = _log_softmax(reference), _log_softmax(found)
    return (np.exp(p) * (p - q)).sum(-1), reference.argmax(-1) == found.argmax(-1)


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    found: npt.NDArray[np.float64] = values - np.log(np.exp(values).sum(-1, keepdims=True))
    return found


def engines(threads: int, console: Console) -> Iterator[tuple[str, Callable[[Sequence[int]], Logits]]]:
    """Yield each engine that is compared; one is in memory at a time."""
    slow = exported("ours-exact-float", ["--quantise", "exact", "--activations", "float32"], console)
    yield "ours exact, float activations", Onnx(slow, threads).logits
    for runner in runners(source_file(SMOLLM2), threads, console):
        if runner.name.startswith("genai") or runner.name.endswith("not steady"):
            continue  # the same graph and weights
        model = Path(runner.arguments[2])
        if runner.name.startswith("ours"):
            yield runner.name, Onnx(open_folder(model), threads).logits
        else:
            yield runner.name, Llama(model, threads, Path(runner.arguments[4])).logits


def exported(name: str, how: Sequence[str], console: Console) -> ModelFolder:
    """Return the model in some form, made where it is missing."""
    folder = PLACE / name
    if not (folder / "manifest.json").exists():
        console.print(f"making {folder.name} …")
        source = str(source_file(SMOLLM2))
        command = [sys.executable, "-m", "toolchain.export", "--source", source, "--to", str(folder), *how]
        subprocess.run(command, check=True, cwd=ROOT)
    return open_folder(folder)


def main() -> None:
    """Compare all engines and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048, help="of each language")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    console = Console(stderr=True)
    folder = exported("ours-f32", ["--quantise", "f32", "--activations", "float32"], console)
    vocabulary = Vocabulary.of(folder, read_config(folder).vocab)
    texts = {language: windows(vocabulary, text_of(language, console), options.tokens) for language in PACKAGES}
    found: dict[str, dict[str, Any]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        exact = Onnx(folder, options.threads).logits
        judged = {
            language: [exact(window) for window in progress.track(text, description=f"reference, {language}")]
            for language, text in texts.items()
        }
        for name, logits in engines(options.threads, console):
            for language, text in texts.items():
                pairs = zip(judged[language], text, strict=True)
                compared = [divergence(right[SKIPPED:], logits(window)[SKIPPED:]) for right, window in progress.track(
                    list(pairs), description=f"{name}, {language}")]  # fmt: skip
                kl = np.concatenate([item[0] for item in compared])
                same = np.concatenate([item[1] for item in compared])
                found.setdefault(name, {})[language] = {
                    "tokens": len(kl), "kl_mean": float(kl.mean()), "kl_p99": float(np.quantile(kl, 0.99)),
                    "kl_max": float(kl.max()), "top1": float(same.mean()),
                }  # fmt: skip
    _show(console, found)
    ours, theirs = found["ours exact"], found["llama.cpp Q4_1"]
    goals = {}
    for language in PACKAGES:
        for label, engine in (("", ours), ("_float_activations", found["ours exact, float activations"])):
            value = engine[language]["kl_mean"]
            goals[f"kl_exact{label}_{language}"] = {"value": value, "goal": KL_GOAL, "met": value <= KL_GOAL}
        goals[f"kl_exact_to_llama_cpp_{language}"] = {
            "value": ours[language]["kl_mean"] / theirs[language]["kl_mean"], "goal": 1.0,
            "met": ours[language]["kl_mean"] <= theirs[language]["kl_mean"],
        }  # fmt: skip
        goals[f"top1_exact_to_llama_cpp_{language}"] = {
            "value": ours[language]["top1"] - theirs[language]["top1"], "goal": 0.0,
            "met": ours[language]["top1"] >= theirs[language]["top1"],
        }  # fmt: skip
    print(json.dumps({"bench": "lm-exact", "goals": goals, "found": found}))


def _show(console: Console, found: dict[str, dict[str, Any]]) -> None:
    table = Table(title="against 32-bit arithmetic on the file's own weights")
    for head in ("engine", "text", "tokens", "KL mean", "KL p99", "KL max", "same token"):
        table.add_column(head, justify="left" if head in ("engine", "text") else "right")
    for name, texts in found.items():
        for language, item in texts.items():
            table.add_row(name, language, str(item["tokens"]), *(f"{item[key]:.2e}" for key in (
                "kl_mean", "kl_p99", "kl_max")), f"{item['top1']:.2%}")  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
