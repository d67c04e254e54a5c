"""`python -m services.agent`; the environment variable EDGEAGENTS_AGENT_FILE names the agent's YAML file.

With `--replay` it decides again what the audit says was decided, and sends nothing.
"""

import sys

if __name__ == "__main__":
    if any(word.startswith("--replay") for word in sys.argv[1:]):
        # Imported apart: a replay needs no web server.
        from services.agent import replay

        sys.exit(replay.main(sys.argv[1:]))
    from edgeagents import quick_start  # noqa: F401  # first: it makes the rest cheaper
    from edgeagents.adapters.bootstrap import run_service
    from edgeagents.errors import ConfigurationError
    from services.agent.app import build_for, load, spec_of

    try:
        agent, path = load()
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    sys.exit(run_service(spec_of(agent), build_for(agent, path)))
