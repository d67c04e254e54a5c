"""Approvers and what waits for them."""

from pathlib import Path

import pytest

from edgeagents.errors import ConfigurationError, NotFoundError, UnauthorisedError
from edgeagents.protocol.gate import NeedsApproval
from services.guard.approvals import Approvals, read_approvers
from tests.unit.services.guard.rig import Rig


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ann: 0123456789abcdef\n", {"ann": "0123456789abcdef"}),
        ("# people\n\n  ann :  0123456789abcdef  # hall\nbob: fedcba9876543210\n", {"ann": "0123456789abcdef", "bob": "fedcba9876543210"}),  # noqa: E501
        ("", {}),
    ],
)  # fmt: skip
def test_approvers_are_read_from_a_file(tmp_path: Path, text: str, found: dict[str, str]) -> None:
    path = tmp_path / "approvers"
    path.write_text(text)
    assert read_approvers(path) == found


@pytest.mark.parametrize("line", ["ann 0123456789abcdef", "ann: short", ": 0123456789abcdef", "ann:"])
def test_a_wrong_line_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "approvers"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"approvers, line 2: write `name: token`"):
        read_approvers(path)


def test_without_a_file_nobody_can_approve_and_a_missing_one_is_told(tmp_path: Path) -> None:
    assert read_approvers(None) == {}
    with pytest.raises(UnauthorisedError):
        Approvals({}, lambda: 0.0, lambda: 0).approver("")
    with pytest.raises(ConfigurationError, match="does it exist, may we read it"):
        read_approvers(tmp_path / "gone")


@pytest.mark.parametrize("token", ["", "x", "0123456789abcde", "0123456789abcdef ", "ann", "é" * 16])
def test_only_a_whole_token_is_somebodys(token: str) -> None:
    approvals = Approvals({"ann": "0123456789abcdef", "bob": "fedcba9876543210"}, lambda: 0.0, lambda: 0)
    assert approvals.approver("fedcba9876543210") == "bob"
    with pytest.raises(UnauthorisedError, match="not an approver's token"):
        approvals.approver(token)


def park(rig: Rig, name: str, *, deadline_s: float = 1000.0, agent: str = "air") -> str:
    """Let a command wait; return why it does not."""
    job = rig.job(name, "false", resource="Enabled", deadline_s=deadline_s, agent=agent)
    rule = rig.owner.site.resources[3]
    return rig.approvals.park(job, NeedsApproval(rule, False, "false", "C"))


def test_what_waits_is_listed_oldest_first_and_taken_once(rig: Rig) -> None:
    for name in ("c-1", "c-2"):
        assert park(rig, name) == ""
        rig.clocks.wall += 1
    assert [item["commandId"] for item in rig.approvals.listed()] == ["c-1", "c-2"]
    assert rig.approvals.listed()[0] == {
        "commandId": "c-1", "agent": "air", "deviceName": "valve", "resourceName": "Enabled", "value": "false",
        "riskClass": "C", "because": "cold", "secondsLeft": 60.0,
    }  # fmt: skip
    assert rig.approvals.take("c-1").job.command.id == "c-1"
    with pytest.raises(NotFoundError, match="decided already, or expired"):
        rig.approvals.take("c-1")


def test_it_waits_as_long_as_the_owner_says_or_until_its_own_deadline(rig: Rig) -> None:
    park(rig, "long")
    park(rig, "short", deadline_s=110.0)
    rig.clocks.now_s = 110.5
    assert [job.command.id for job in rig.approvals.overdue()] == ["short"]
    rig.clocks.now_s = 160.5
    assert [job.command.id for job in rig.approvals.overdue()] == ["long"]
    assert rig.approvals.overdue() == []
    assert rig.approvals.listed() == []
