"""A language model on this CPU: prefill, decode, first tokens and memory, ours beside llama.cpp and onnxruntime-genai.

    make bench-lm ARGS="--passes 7"

All compute the same tokens with the same weights, 2 threads, each in a process of its own; passes alternate, figures
are medians. "exact" has the very weights that the package ships (Q4_1), and llama.cpp runs its file as it is; the other
forms are made from it, ours by `toolchain.export`, llama.cpp's by its own quantiser. Peers are installed under `var/`
at the first run. The memory roof is what one pass of two threads over a buffer larger than the caches reaches. The
last line is JSON.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.bench.lm_engines import LENGTH
from toolchain.sources import SMOLLM2, source_file

ROOT: Final = Path(__file__).resolve().parents[2]
PLACE: Final = ROOT / "var" / "lm"
LLAMA: Final = "@node-llama-cpp/linux-x64@3.22.1"
GENAI: Final = "onnxruntime-genai==0.18.0"
CACHED_GOAL_MS, CACHED_GOAL_TIMES, ROOF_GOAL, MEMORY_GOAL = 60.0, 8.0, 0.35, 1.2
# What is held against what, at equal bits.
EQUALS: Final = {
    "exact": ("llama.cpp Q4_1", "genai exact"),
    "q4": ("llama.cpp Q4_0", "genai q4"),
    "q8": ("llama.cpp Q8_0", "genai q8"),
}


@dataclass(frozen=True, slots=True)
class Runner:
    """An engine with a model."""

    name: str
    arguments: tuple[str, ...]
    weights: Path  # the file that every token reads
    python: str = sys.executable


def runners(source: Path, threads: int, console: Console) -> list[Runner]:
    """Return all engines, their models and libraries made where they are missing."""
    library = _library(console)
    found = []
    for form in ("exact", "q4", "q8"):
        folder = PLACE / f"ours-{form}"
        if not (folder / "manifest.json").exists():
            _told(console, f"making {folder.name} …", [
                sys.executable, "-m", "toolchain.export", "--source", str(source), "--to", str(folder),
                "--quantise", form,
            ])  # fmt: skip
        weights, arguments = folder / "model.onnx.data", ("ours", "--model", str(folder))
        found.append(Runner(f"ours {form}", arguments, weights))
        found.append(_genai(folder, form, threads, console))
        if form != "q8":  # whose products are the same for one row and for several
            found.append(Runner(f"ours {form} not steady", (*arguments, "--free"), weights))
    for form in ("Q4_1", "Q4_0", "Q8_0"):
        file = source if form == "Q4_1" else PLACE / f"{form}.gguf"
        if not file.exists():
            from tests.bench.lm_engines import quantise

            console.print(f"making {file.name} …")
            quantise(library, source, file, form)
        arguments = ("llama.cpp", "--model", str(file), "--library", str(library))
        found.append(Runner(f"llama.cpp {form}", arguments, file))
    return found


def _genai(ours: Path, form: str, threads: int, console: Console) -> Runner:
    """Return onnxruntime-genai with our very graph and weights, in an environment of its own."""
    from tests.bench.lm_genai import write_genai_folder

    python, folder = PLACE / "genai" / "bin" / "python", PLACE / f"genai-{form}-{threads}"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        _told(console, f"installing {GENAI} …", [uv, "venv", "--quiet", str(python.parents[1])])
        _told(console, "…", [uv, "pip", "install", "--quiet", "--python", str(python), GENAI])
    if not folder.exists():
        write_genai_folder(ours, folder, threads=threads, length=LENGTH)
    return Runner(f"genai {form}", ("genai", "--model", str(folder)), folder / "model.onnx.data", str(python))


def _library(console: Console) -> Path:
    folder = PLACE / "node_modules" / "@node-llama-cpp" / "linux-x64" / "bins" / "linux-x64"
    if not folder.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        _told(console, f"installing {LLAMA} …", ["npm", "install", "--silent", "--prefix", str(PLACE), LLAMA])
    return folder


def _told(console: Console, what: str, command: Sequence[str]) -> None:
    console.print(what)
    subprocess.run(command, check=True, cwd=ROOT)


def measured(runner: Runner, threads: int) -> dict[str, Any]:
    """Return what one process of an engine measured."""
    command = [runner.python, "-m", "tests.bench.lm_engines", *runner.arguments, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{runner.name}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def roof_bytes_per_s(threads: int) -> float:
    """Return how fast threads together read a buffer of 512 MiB, best of five: bytes a second."""
    parts = np.array_split(np.ones(64 << 20, np.int64), threads)

    def once() -> float:
        working = [threading.Thread(target=part.max) for part in parts]  # numpy lets go of the lock
        began = time.perf_counter()
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
        return time.perf_counter() - began

    return sum(part.nbytes for part in parts) / min(once() for _ in range(5))


def medians(passes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median of each figure."""
    flat = [{**figures, **{f"decode_{rows}": rate for rows, rate in figures["decode"].items()}} for figures in passes]
    return {name: statistics.median(item[name] for item in flat) for name in flat[0] if name != "decode"}


def goals(found: Mapping[str, Mapping[str, float]], roof: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return the goals with what was reached."""
    goals: dict[str, dict[str, Any]] = {}

    def add(name: str, value: float, goal: float, *, is_most: bool = False) -> None:
        met = value <= goal if is_most else value >= goal
        goals[name] = {"value": round(value, 3), "goal": goal, "met": met}

    for form, peers in EQUALS.items():
        ours = found[f"ours {form}"]
        theirs = [found[peer] for peer in peers if peer in found]
        llama = found[peers[0]]
        add(f"decode_{form}_to_best_peer", ours["decode_1"] / max(peer["decode_1"] for peer in theirs), 1.0)
        add(f"prefill_{form}_to_best_peer", ours["prefill"] / max(peer["prefill"] for peer in theirs), 1.0)
        add(f"rss_{form}_to_llama_cpp", ours["rss_mib"] / llama["rss_mib"], MEMORY_GOAL, is_most=True)
        add(f"cached_first_token_{form}_ms", ours["first_cached_ms"], CACHED_GOAL_MS, is_most=True)
        add(f"cached_over_cold_{form}", ours["first_cold_ms"] / ours["first_cached_ms"], CACHED_GOAL_TIMES)
    add("decode_int4_of_roof", roof["ours q4"], ROOF_GOAL)
    return goals


def main() -> None:
    """Run all passes and say what they show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="engines whose names contain this")
    options = parser.parse_args()
    console = Console(stderr=True)
    all_runners = [
        runner for runner in runners(source_file(SMOLLM2), options.threads, console) if options.only in runner.name
    ]
    passes: dict[str, list[dict[str, Any]]] = {runner.name: [] for runner in all_runners}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("passes", total=options.passes * len(all_runners))
        for number in range(options.passes):
            for runner in all_runners if number % 2 == 0 else reversed(all_runners):
                progress.update(task, description=runner.name)
                passes[runner.name].append(measured(runner, options.threads))
                progress.advance(task)
    found = {name: medians(figures) for name, figures in passes.items()}
    bytes_per_s = roof_bytes_per_s(options.threads)
    roof = {
        runner.name: found[runner.name]["decode_1"] * runner.weights.stat().st_size / bytes_per_s
        for runner in all_runners
    }  # fmt: skip
    _show(console, found, roof, bytes_per_s)
    print(json.dumps({
        "bench": "lm", "goals": {} if options.only else goals(found, roof), "passes": options.passes,
        "threads": options.threads, "medians": found, "of_roof": roof, "roof_gb_per_s": bytes_per_s / 1e9,
        "peers": {"llama.cpp": LLAMA, "genai": GENAI}, "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
    }))  # fmt: skip


def _show(
    console: Console, found: Mapping[str, Mapping[str, float]], roof: Mapping[str, float], bytes_per_s: float
) -> None:
    table = Table(title=f"tokens/s, medians; memory reads at {bytes_per_s / 1e9:.1f} GB/s")
    heads = {
        "prefill": "prefill", "decode_1": "decode", "decode_2": "two texts", "decode_4": "four",
        "first_cold_ms": "first, cold ms", "first_cached_ms": "kept ms", "rss_mib": "RSS MiB",
        "rss_of_batches_mib": "of four", "load_s": "load s",
    }  # fmt: skip
    for head in ("engine", *heads.values(), "of roof"):
        table.add_column(head, justify="left" if head == "engine" else "right")
    for name, figures in found.items():
        cells = (f"{figures[key]:.0f}" if figures[key] >= 10 else f"{figures[key]:.2f}" for key in heads)
        table.add_row(name, *cells, f"{roof[name]:.0%}")
    console.print(table)


if __name__ == "__main__":
    main()
