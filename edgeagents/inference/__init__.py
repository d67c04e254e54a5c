"""Models on the gateway's CPU: loading them safely, running them, and writing text with them. No network, no clock.

onnxruntime reports home unless it is told not to before it is imported: this package tells it.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
