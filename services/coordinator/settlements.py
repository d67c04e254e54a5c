"""What is kept of a settled conflict: the audit's record of it, and what clients are shown. Pure.

Source: docs/conflicts.md.
"""

from typing import Any

from services.coordinator import negotiator


def settled_body(state: negotiator.Ended, took_s: float) -> dict[str, Any]:
    """Return the audit's record of a settlement: parties, utilities, rung, runner-up, reasons."""
    case, verdict, answers = state.case, state.verdict, state.answers
    parties = []
    for name in case.parties:
        found = answers.appraisals.get(name)
        said = (
            "bargains" if found else "gives way" if name in answers.yielded
            else "takes no part" if name in answers.out else "not heard"
        )  # fmt: skip
        parties.append({
            "agent": name, "priority": case.priorities[name], "said": said,
            **({} if found is None else {
                "way": found.way, "holds": name == case.holder, "disagreement": found.disagreement,
                "worth": {item.option: round(item.utility, 6) for item in found.worths},
            }),
        })  # fmt: skip
    return {
        "conflict": case.conversation, "device": case.dispute.device, "resource": case.dispute.resource,
        "by": case.claimant, "wanted": case.dispute.wanted, "because": case.dispute.because,
        "options": list(case.dispute.options), "parties": parties,
        "forbidden": negotiator.forbidden(case, state.answers.appraisals),
        "holder": case.holder, "quiet_s": round(case.quiet_s, 3),
        "value": verdict.value, "winner": verdict.winner, "rung": verdict.rung, "runner_up": verdict.runner_up,
        "reasons": list(verdict.reasons), "stands_s": case.stands_s if verdict.stands else 0.0,
        "took_ms": round(1e3 * took_s, 3),
    }  # fmt: skip


def shown(state: negotiator.Ended, began_unix_ns: int, took_s: float) -> dict[str, Any]:
    """Return a settled conflict as clients see it, in EdgeX's way of writing."""
    body = settled_body(state, took_s)
    return {
        "id": body["conflict"], "deviceName": body["device"], "resourceName": body["resource"], "askedBy": body["by"],
        "wanted": body["wanted"], "because": body["because"], "options": body["options"],
        "forbidden": body["forbidden"], "parties": body["parties"], "value": body["value"], "winner": body["winner"],
        "rung": body["rung"], "runnerUp": body["runner_up"], "reasons": body["reasons"],
        "standsS": body["stands_s"], "released": "", "holder": body["holder"], "began": began_unix_ns,
        "tookMs": body["took_ms"],
    }  # fmt: skip
