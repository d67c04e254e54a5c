"""`edgeagents credentials`: passwords and tokens of a gateway, one folder a consumer; `--rotate` makes new ones.

Source: docs/compose.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from edgeagents.adapters.credentials import EVERYBODY, Credentials
from edgeagents.adapters.files import AgentFiles, agent_files
from edgeagents.adapters.leaf_nodes import gateways_if_any
from edgeagents.settings import PREFIX

Folder = Annotated[Path, Parameter(help="where they are kept: a folder a consumer in it")]
Agents = Annotated[Path, Parameter(help="folder with one YAML file per agent")]
Gateway = Annotated[str, Parameter(env_var=f"{PREFIX}GATEWAY", help="name of the gateway")]
Rotate = Annotated[
    list[str] | None,
    Parameter(
        consume_multiple=True,
        help="make new ones: of `guard`, `owner`, `edgex`, `coordinator`, `inference`, agents by name, "
        "`peer-NAME` for a gateway, or `all`",
    ),
]
Gateways = Annotated[
    Path | None,
    Parameter(
        env_var=f"{PREFIX}GUARD_GATEWAYS_FILE",
        help="gateways.yaml: peers that come to us get a password; may be missing",
    ),
]


def credentials(
    *,
    folder: Folder,
    agents: Agents,
    gateway: Gateway = "gateway",
    rotate: Rotate = None,
    gateways: Gateways = None,
) -> None:
    """Make what credentials are missing, and the broker's users with what each may do; says what is new.

    A running broker of ours takes its new users over by itself, within a second; guard, agents and peers reconnect.
    `owner/peer-NAME.password` is for the owner of that gateway. Files that cannot be read, and two that declare one
    agent, are told on stderr; the others' credentials are made all the same. A folder without any agent file takes
    nobody's credentials away.
    """
    names = [EVERYBODY] if rotate == [] else rotate or []
    linked = gateways_if_any(gateways, gateway)
    files = agent_files(agents)
    # An empty folder is a volume that is not mounted: not the owner's word that there are no agents.
    has_any = bool(files.agents or files.doubled or files.wrong)
    found = Credentials(
        # A name that two files declare is one agent's all the same; the guard gives it no permission.
        folder, gateway, [*files.agents, *files.doubled], names,
        peers=linked.peers if linked else (), coming=linked.coming if linked else (),
        leaders=[name for name, agent in files.agents.items() if agent.leads], all_known=has_any and not files.wrong,
    )  # fmt: skip
    found.write()
    _warn(files, found.kept, "" if has_any else f"{agents}: no agent file at all: is the volume mounted?")
    new = ", ".join(found.made)
    count = len(found.agents) + len(found.kept)
    Console(soft_wrap=True, highlight=False).print(
        f"credentials of {count} agents in {folder}: " + (f"new are {new}" if new else "nothing is new"), markup=False
    )


def _warn(files: AgentFiles, kept: Sequence[str], absence: str) -> None:
    """Say on stderr which files are wrong, and who keeps credentials though no file declares them.

    Args:
        files: what the folder holds.
        kept: agents that keep what they had.
        absence: that the folder holds none, told where somebody keeps credentials: a gateway may have no agents yet.
    """
    problems = [*files.wrong.values(), *files.doubled.values()]
    if kept:
        problems += [absence] if absence else []
        problems.append(f"until all files can be read, nobody's credentials are taken away: kept are {', '.join(kept)}")
    for problem in problems:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("warning: ", "yellow"), problem))
