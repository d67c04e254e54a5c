"""`python -m services.inference`; EDGEAGENTS_INFERENCE_MODEL names the model's folder."""

import os
import sys

if __name__ == "__main__":
    # Before onnxruntime and numpy are imported, by whomever. numpy would ask for huge pages: rows of key-value memory
    # that are hardly used would then be there as a whole, 327 MiB more for the default model.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    from edgeagents import quick_start  # noqa: F401  # first: it makes the rest cheaper
    from edgeagents.adapters.bootstrap import run_service
    from services.inference.app import SPEC, build

    sys.exit(run_service(SPEC, build))
