"""`make bench-ask`: how many of the labelled sentences and situations are understood; the last line is one JSON object.

    python -m tests.bench.ask [--failures] [--model 48]

`--failures` prints those of the tuned half, and all situations; `--model N` also asks the default model (`make model`)
about N sentences and N situations spread over the sets. Score by fast path (in situations: the rules), model and both;
by half, kind and language. The held-out half is not tuned on.
"""

import argparse
import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any, Final

from edgeagents.adapters.files import load_agent
from edgeagents.model.agent import Thinks
from tests.bench.ask_model import ModelPath, summary
from tests.bench.ask_set import HOME, ROOT, FastPath, Item, Verdict, items, judge
from tests.bench.ask_situations import by_model, by_rules, judged, situations, sure_of

MODEL: Final = ROOT / "models" / "smollm2-135m-instruct"


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(prog="make bench-ask ARGS=…")
    parser.add_argument("--failures", action="store_true", help="print what is not right of the tuned half")
    parser.add_argument("--model", type=int, default=0, metavar="N", help="ask the model about N sentences, too")
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
    result["situations"] = by_rules_alone(is_told=arguments.failures)
    if arguments.model:
        result |= asyncio.run(with_model(verdicts, arguments.model))
        result["situations"] |= asyncio.run(situations_with_model(arguments.model, is_told=arguments.failures))
    print(json.dumps(result, ensure_ascii=False))


async def with_model(verdicts: list[tuple[Item, Verdict]], count: int) -> dict[str, Any]:
    """Return the score of the model alone, and of fast path and model together, on sentences spread over the set."""
    sure = (load_agent(HOME / "agents" / "assistant.yaml").thinks or Thinks()).sure
    chosen = verdicts[:: max(1, len(verdicts) // count)][:count]
    path = ModelPath(MODEL)
    try:
        said = [(item, await path.judge(item)) for item, _ in chosen]
    finally:
        path.close()
    by_model = {item.text: one for item, one in said}
    both: list[tuple[Item, Verdict]] = []
    for item, verdict in chosen:
        one = by_model[item.text]
        # Less sure: nothing is done, and the person is asked.
        is_sure = one.confidence >= sure or one.verdict != "harmful"
        both.append((item, verdict if verdict != "silent" else one.verdict if is_sure else "silent"))
    by_language = {
        language: summary([pair for pair in said if pair[0].language == language], sure) for language in ("en", "zh")
    }
    return {
        "model": summary(said, sure) | by_language,
        "same_fast_path": score(chosen)["all"],
        "both": score(both)["all"],
    }


def by_rules_alone(*, is_told: bool) -> dict[str, Any]:
    """Return the score of the rules (of the templates, where something is said) on all situations, by kind."""
    found = [(item, judged(by_rules(item), item)) for item in situations()]
    for item, one in found:
        if is_told and one != "right":
            print(
                f"{one:8} {item.agent}: {item.name} -> wanted {item.want}, got {' '.join(by_rules(item)) or 'nothing'}"
            )
    kinds = sorted({item.kind for item, _ in found})
    by_kind = {kind: counted([one for item, one in found if item.kind == kind]) for kind in kinds}
    return {"n": len(found), "rules": counted([one for _, one in found]), "rules_by_kind": by_kind}


async def situations_with_model(count: int, *, is_told: bool) -> dict[str, Any]:
    """Return the score of the model, and of rules and model together, on situations spread over the set."""
    path = ModelPath(MODEL)
    by_model_alone: list[Verdict] = []
    both: list[Verdict] = []
    asked = 0
    chosen = situations()[:: max(1, len(situations()) // count)][:count]
    try:
        for item in chosen:
            ruled, said = by_rules(item), await by_model(item, path.client)
            done, confidence = said if said is not None else (frozenset[str](), 1.0)
            asked += said is not None
            by_model_alone.append(judged(done, item))
            both.append(judged(ruled or (done if confidence >= sure_of(item) else frozenset()), item))
            if is_told:
                print(f"model {by_model_alone[-1]:8} {confidence:4.0%} {item.name} -> {' '.join(done) or 'nothing'}")
    finally:
        path.close()
    return {"n_model": len(chosen), "asked": asked, "model": counted(by_model_alone), "both": counted(both)}


def counted(verdicts: list[Verdict]) -> dict[str, Any]:
    """Return the share of right ones, and how many others there are."""
    counts = Counter(verdicts)
    words = ("silent", "wrong", "harmful")
    return {"right": round(counts["right"] / max(1, len(verdicts)), 3), **{word: counts[word] for word in words}}


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
