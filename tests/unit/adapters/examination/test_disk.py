"""What a look at a folder's disk tells."""

from pathlib import Path

from edgeagents.adapters.examination.disk import look_at_disk


def test_a_folder_that_can_be_written_tells_its_room_and_is_left_as_it_was(tmp_path: Path) -> None:
    facts = look_at_disk("the guard", tmp_path)
    assert (facts.problem, facts.is_there) == ("", True)
    assert 0 < facts.free_bytes <= facts.total_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_or_not_named_is_no_problem_of_the_disk(tmp_path: Path) -> None:
    assert not look_at_disk("the guard", tmp_path / "gone").is_there
    assert look_at_disk("the guard", None).path == ""


def test_where_nothing_can_be_written_the_reason_is_told() -> None:
    assert look_at_disk("the guard", Path("/proc")).problem
