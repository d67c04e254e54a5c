"""What is made of onnxruntime's profile."""

import pytest

from tests.bench.lm_profile import by_operator


def node(name: str, took_us: int) -> dict[str, object]:
    """Return a kernel's line."""
    return {"cat": "Node", "name": f"{name}_7_kernel_time", "dur": took_us, "args": {"op_name": name}}


def test_what_kernels_took_is_told_for_one_step_with_what_lies_between_and_outside() -> None:
    events = [
        node("MatMulNBits", 3000), node("Mul", 500), node("MatMulNBits", 1000),
        {"cat": "Node", "name": "Mul_7_fence_before", "dur": 9999, "args": {"op_name": "Mul"}},
        {"cat": "Session", "name": "model_run", "dur": 5000},
    ]  # fmt: skip
    found = by_operator(events, steps=2, took_ms=6.0)
    assert found == pytest.approx({"MatMulNBits": 2.0, "Mul": 0.25, "between kernels": 0.25, "outside": 0.5})
    assert sum(found.values()) == pytest.approx(3.0)
