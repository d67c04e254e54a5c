"""Where the time of a token goes: kernels of onnxruntime by operator, of a prompt and of an answer.

    make bench-lm-profile ARGS="--form q4"

One process, one text. What kernels took is read from onnxruntime's own profile; what the graph's run took besides is
"between kernels", what Python took around it "outside". Bytes are those of the weights that a token reads, so that each
operator's rate can be held against the memory roof. The last line is JSON; there is no goal.

Source: onnxruntime profiling (`SessionOptions.enable_profiling`).
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from edgeagents.inference.folder import open_folder
from edgeagents.inference.language import LanguageModel
from tests.bench.lm import PLACE, roof_bytes_per_s
from tests.bench.lm_engines import PROMPT, VOCAB

STEPS: Final = {"prompt": 4, "answer": 64}


def profiled(folder: Path, threads: int, *, steady: bool, work: Callable[[LanguageModel], int]) -> dict[str, float]:
    """Return milliseconds of one step by operator, with what lies between kernels and outside of the graph.

    Args:
        folder: the model.
        threads: that compute.
        steady: as agents have it: an idle row goes along.
        work: does some steps and returns how many.
    """
    model = LanguageModel.load(open_folder(folder), rows=4, length=1024, threads=threads, steady=steady)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_mem_pattern, options.log_severity_level = False, 3
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as place:
        options.profile_file_prefix = str(Path(place) / "ort")
        # The decoder binds its rows at the first step: to this one.
        model.decoder.session.ort = session = ort.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        began_s = time.perf_counter()
        steps = work(model)
        took_ms = 1e3 * (time.perf_counter() - began_s)
        events = json.loads(Path(session.end_profiling()).read_text())
    return by_operator(events, steps, took_ms)


def by_operator(events: Sequence[Mapping[str, Any]], steps: int, took_ms: float) -> dict[str, float]:
    """Return milliseconds of one step by operator, between kernels and outside of the graph; they add up to all."""
    kernels: Counter[str] = Counter()
    graph_us = 0
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels[event["args"]["op_name"]] += event["dur"]
        elif event["name"] == "model_run":
            graph_us += event["dur"]
    found = {name: us / 1e3 / steps for name, us in kernels.most_common()}
    found["between kernels"] = (graph_us - sum(kernels.values())) / 1e3 / steps
    found["outside"] = took_ms / steps - graph_us / 1e3 / steps
    return found


def prompt(model: LanguageModel) -> int:
    """Compute a prompt some times over, in pieces as the token loop does."""
    tokens = random.Random(1).choices(range(VOCAB), k=PROMPT)
    for _ in range(STEPS["prompt"]):
        model.decoder.prefill(0, tokens[:256], 0)
        model.decoder.prefill(0, tokens[256:], 256)
    return STEPS["prompt"]


def answer(model: LanguageModel) -> int:
    """Write an answer behind such a prompt."""
    for at in range(STEPS["answer"]):
        model.decoder.decode([at], [PROMPT + at])
    return STEPS["answer"]


def main() -> int:
    """Profile a prompt, an answer as agents have it, and one without the idle row."""
    parser = argparse.ArgumentParser(prog="make bench-lm-profile ARGS=…", description=__doc__.splitlines()[0])
    parser.add_argument("--form", default="exact", choices=("exact", "q4", "q8"), help="of the weights")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = PLACE / f"ours-{options.form}"
    if not (folder / "manifest.json").exists():
        print(f"no model in {folder}: run `make bench-lm ARGS='--passes 1'` first", file=sys.stderr)
        return 1
    kinds = {"prompt": (prompt, True), "answer": (answer, True), "answer, not steady": (answer, False)}
    found = {
        name: profiled(folder, options.threads, steady=steady, work=work) for name, (work, steady) in kinds.items()
    }
    roof, size_bytes = roof_bytes_per_s(options.threads), (folder / "model.onnx.data").stat().st_size
    table = Table(
        title=f"ms of a step, {options.form}; reading all weights once takes {1e3 * size_bytes / roof:.1f} ms"
    )
    for head in ("operator", *found):
        table.add_column(head, justify="left" if head == "operator" else "right")
    for name in sorted(
        {name for column in found.values() for name in column}, key=lambda item: -found["answer"].get(item, 0)
    ):
        table.add_row(name, *(f"{column.get(name, 0.0):.2f}" for column in found.values()))
    table.add_row("all", *(f"{sum(column.values()):.2f}" for column in found.values()))
    Console(stderr=True, width=100).print(table)
    print(json.dumps({
        "bench": "lm-profile", "goals": {}, "form": options.form, "threads": options.threads, "ms": found,
        "weights_bytes": size_bytes, "roof_bytes_per_s": roof,
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
