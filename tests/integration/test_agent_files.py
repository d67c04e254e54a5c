"""Agent files that come, change and go while a real guard runs."""

from pathlib import Path

import yaml

from edgeagents.errors import UnavailableError
from tests.contract.waiting import until
from tests.guarded import Client, Gateway, agent_file

SEEN_S = 30.0  # far more than it takes, on a busy machine


def write(gateway: Gateway, name: str, text: str) -> Path:
    """Write an agent's file, as an editor does: whole."""
    path = gateway.folder / "agents" / f"{name}.yaml"
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
    return path


async def test_an_agent_that_is_added_works_and_one_that_is_removed_loses_its_leases(
    gateway: Gateway, client: Client
) -> None:
    path = write(gateway, "night", yaml.safe_dump(agent_file("night")))
    night = client.agent("night")

    async def is_known() -> bool:
        try:
            return not (await night.welcome()).refused
        except UnavailableError:
            return False

    await until(is_known, "the guard has read the new file", timeout_s=SEEN_S)
    async with night:
        assert (await night.do("valve-5", "21")).status == "proven"
        path.unlink()

        async def leases() -> list[str]:
            return [item["agent"] for item in (await client.state())["leases"]]

        async def has_lost_them() -> bool:
            return "night" not in await leases()

        await until(has_lost_them, "its leases have ended", timeout_s=SEEN_S)
        assert "no agent file declares 'night'" in (await night.lease("valve-5")).reason
        assert (await client.agent("heat").lease("valve-5")).granted, "another may have it"

    async def is_audited() -> bool:  # written behind what it tells
        audited = [yaml.safe_load(record.body) for record in await client.audit("agent-files")]
        return [(item["added"], item["removed"]) for item in audited][-2:] == [(["night"], []), ([], ["night"])]

    await until(is_audited, "both are in the audit", timeout_s=SEEN_S)


async def test_a_file_that_is_wrong_leaves_in_force_what_it_said_and_is_shown(gateway: Gateway, client: Client) -> None:
    path = write(gateway, "heat", "name: heat\nmode: [\n")

    async def is_shown() -> bool:
        return str(path) in (await client.state())["wrongFiles"]

    await until(is_shown, "it is shown", timeout_s=SEEN_S)
    async with client.agent("heat") as heat:
        assert (await heat.do("valve-6", "22")).status == "proven"
    write(gateway, "heat", yaml.safe_dump(agent_file("heat", priority="health")))

    async def is_right() -> bool:
        return not (await client.state())["wrongFiles"]

    await until(is_right, "it is right again", timeout_s=SEEN_S)
    assert gateway.guard is not None
    log = gateway.guard.log_path.read_text()
    assert log.count("what was known before counts on") == 1


async def test_a_permission_that_is_taken_away_counts_and_its_lease_ends(gateway: Gateway, client: Client) -> None:
    async with client.agent("air") as air:
        assert (await air.do("valve-7", "21")).status == "proven"
        write(gateway, "air", yaml.safe_dump(agent_file("air", may=[{"profile": "Valve", "resource": "Open"}])))

        async def is_over() -> bool:
            return "no permission" in (await air.lease("valve-7")).reason

        await until(is_over, "the permission is gone", timeout_s=SEEN_S)

        async def has_lost_it() -> bool:
            leases = [(item["deviceName"], item["agent"]) for item in (await client.state())["leases"]]
            return ("valve-7", "air") not in leases

        await until(has_lost_it, "its lease has ended", timeout_s=SEEN_S)
        write(gateway, "air", yaml.safe_dump(agent_file("air")))

        async def is_back() -> bool:
            return (await air.lease("valve-7")).granted

        await until(is_back, "it is there again", timeout_s=SEEN_S)


async def test_a_guard_that_starts_on_a_wrong_file_keeps_its_agent_out_alone_until_it_is_right(
    gateway: Gateway, client: Client
) -> None:
    async with client.agent("heat") as heat:
        assert (await heat.do("valve-8", "22")).status == "proven"
        path = write(gateway, "heat", "name: heat\nleads: !!bool maybe\n")
        await client.restart_guard()
        assert list((await client.state())["wrongFiles"]) == [str(path)]
        async with client.agent("air") as air:
            assert (await air.do("valve-5", "23")).status == "proven", "all others work"
        refused = (await heat.lease("valve-8")).reason
        assert f"{path}, line 2: not YAML: 'maybe' is no bool" in refused
        write(gateway, "heat", yaml.safe_dump(agent_file("heat", priority="health")))

        async def is_known() -> bool:
            return (await heat.lease("valve-8")).granted

        await until(is_known, "the guard has read the right file", timeout_s=SEEN_S)
        assert (await heat.do("valve-8", "23")).status == "proven"
    assert not (await client.state())["wrongFiles"]
