"""Who may take part in a conflict, and give which option: by the owner's files and devices' profiles alone. Pure.

What an agent says of itself counts for nothing here; what the guard would refuse at the moment is the guard's.

Source: docs/conflicts.md.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import Dispute
from edgeagents.model.message import MAX_OPTIONS
from edgeagents.model.skill import Aim
from edgeagents.protocol.eligibility import Site, permission_problem

MOST_ASKED: Final = MAX_OPTIONS  # options that parties are asked about


def party_problem(name: str, dispute: Dispute, site: Site, *, needs_permission: bool = True) -> str:
    """Return why one can be no party of a conflict, by the owner's files; empty when it can.

    Who asks needs no permission: it may want a resource let be that is coupled with its own.
    """
    agent = site.agents.get(name)
    if agent is None:
        return f"no agent {name[:64]!r} has a file here"
    if agent.mode != "act":
        return f"agent {name!r} is in mode {agent.mode!r} and commands nothing: write `mode: act`"
    if agent.negotiates is None or not agent.negotiates.covers(dispute.device, dispute.resource):
        return f"agent {name!r} does not negotiate about {dispute.device}/{dispute.resource}: see its `negotiates`"
    device = site.devices.get(dispute.device)
    if device is None:
        return f"core-metadata knows no device {dispute.device[:64]!r}"
    if needs_permission and not any(entry.resource == dispute.resource and entry.fits(device) for entry in agent.may):
        return f"agent {name!r} has no permission for {dispute.device}/{dispute.resource}"
    return ""


def able(dispute: Dispute, parties: Sequence[str], site: Site) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Return which options each party may give by the owner's files and the profile, and why some may not."""
    found: dict[str, set[str]] = {name: set() for name in parties}
    problems: dict[str, str] = {}
    for option in dispute.options:
        for name in parties:
            problem = _option_problem(site.agents[name], dispute, option, site)
            if problem:
                problems[option] = problem
            else:
                found[name].add(option)
    return {name: frozenset(options) for name, options in found.items()}, problems


def _option_problem(agent: AgentDefinition, dispute: Dispute, option: str, site: Site) -> str:
    return permission_problem(agent, Aim(dispute.device, dispute.resource, option), site)


def options_of(dispute: Dispute, site: Site) -> tuple[str, ...]:
    """Return all that may come of a dispute whoever its parties are: what is listed, and what files say, so many."""
    return with_files_options(dispute, sorted(site.agents), site).options


def with_files_options(dispute: Dispute, parties: Sequence[str], site: Site) -> Dispute:
    """Return a dispute over what all its parties could live with, by their files, beside the asker's own list.

    Else whoever asks would win by what it leaves out.
    """
    listed = list(dispute.options)
    for name in parties:
        negotiates = site.agents[name].negotiates
        for item in negotiates.over if negotiates is not None else ():
            listed += item.options if item.is_about(dispute.device, dispute.resource) else ()
    return dispute.model_copy(update={"options": tuple(dict.fromkeys(listed))[:MOST_ASKED]})


def without_locked(dispute: Dispute, locked: Mapping[str, str]) -> tuple[Dispute, dict[str, str]]:
    """Return a dispute without the options that interlocks forbid now, and those, with why.

    Raises:
        InvalidInputError: no option is left.
    """
    struck = {option: locked[option] for option in dispute.options if option in locked}
    left = tuple(option for option in dispute.options if option not in struck)
    if not left:
        raise InvalidInputError("the owner's interlocks leave no option: " + "; ".join(dict.fromkeys(struck.values())))
    return dispute.model_copy(update={"options": left}), struck
