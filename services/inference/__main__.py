"""`python -m services.inference`; EDGEAGENTS_INFERENCE_MODEL names the model's folder."""

import os
import sys

if __name__ == "__main__":
    # Before onnxruntime is imported, by whomever.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    from edgeagents import quick_start  # noqa: F401  # first: it makes the rest cheaper
    from edgeagents.adapters.bootstrap import run_service
    from services.inference.app import SPEC, build

    sys.exit(run_service(SPEC, build))
