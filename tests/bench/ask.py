"""`make bench-ask`: how many of the labelled sentences are understood; the last line is one JSON object.

    python -m tests.bench.ask [--failures]    # --failures: of the tuned half, which ones

Score by fast path, and with a model by that too; by half, kind and language. The held-out half is not tuned on.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from tests.bench.ask_set import FastPath, Item, Verdict, items, judge


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(prog="make bench-ask ARGS=…")
    parser.add_argument("--failures", action="store_true", help="print what is not right of the tuned half")
    arguments = parser.parse_args()
    began_s = time.process_time()
    path = FastPath()
    for first in {item.language: item for item in items()}.values():
        path.understand(first)  # templates are read when a language is first spoken
    load_s = time.process_time() - began_s
    verdicts, spent_ms = [], []
    for item in items():
        began_s = time.process_time()
        found = path.understand(item)
        spent_ms.append((time.process_time() - began_s) * 1e3)
        verdicts.append((item, judge(found, item.want)))
        if arguments.failures and item.half == "tuned" and verdicts[-1][1] != "right":
            print(f"{verdicts[-1][1]:8} {item.text} -> wanted {item.want}, got {found}"[:300])
    result = {
        "sentences": len(verdicts), "load_s": round(load_s, 2), "median_ms": round(median(spent_ms), 1),
        "p99_ms": round(sorted(spent_ms)[int(len(spent_ms) * 0.99)], 1), "fast_path": score(verdicts),
    }  # fmt: skip
    print(json.dumps(result, ensure_ascii=False))


def score(verdicts: Iterable[tuple[Item, Verdict]]) -> dict[str, Any]:
    """Return shares of right ones and counts of the others, in all and by half, kind and language."""
    found = list(verdicts)
    axes: dict[str, Callable[[Item], str]] = {
        "all": lambda item: "all", "half": lambda item: item.half, "language": lambda item: item.language,
        "held_out_by_kind": lambda item: item.kind if item.half == "held-out" else "",
    }  # fmt: skip
    result: dict[str, Any] = {}
    for axis, name_of in axes.items():
        groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for item, verdict in found:
            groups[name_of(item)][verdict] += 1
        result[axis] = {
            name: {"right": round(counts["right"] / counts.total(), 3), "n": counts.total(), **{
                word: counts[word] for word in ("silent", "wrong", "harmful")}}
            for name, counts in sorted(groups.items()) if name
        }  # fmt: skip
    return result


if __name__ == "__main__":
    main()
