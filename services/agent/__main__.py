"""`python -m services.agent`; the environment variable EDGEAGENTS_AGENT_FILE names the agent's YAML file."""

import sys

from edgeagents.adapters.bootstrap import run_service
from edgeagents.errors import ConfigurationError
from services.agent.app import build_for, load, spec_of

if __name__ == "__main__":
    try:
        agent, path = load()
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    sys.exit(run_service(spec_of(agent), build_for(agent, path)))
