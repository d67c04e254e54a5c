"""What `make images` installs has wheels for both kinds of gateways: nothing is compiled inside an image."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import Tag, cpython_tags
from packaging.utils import parse_wheel_filename

LOCK = Path(__file__).resolve().parents[2] / "uv.lock"
OLDEST_GLIBC, NEWEST_GLIBC = 5, 36  # 2.x; Debian bookworm, the images' base, has 2.36


def locked() -> dict[str, list[Mapping[str, Any]]]:
    """Return the locked packages by name; some have several versions."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for package in tomllib.loads(LOCK.read_text())["package"]:
        found.setdefault(package["name"], []).append(package)
    return found


def needed_by(package: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a package needs, with all its extras."""
    extras = package.get("optional-dependencies", {}).values()
    for entry in (*package.get("dependencies", []), *(entry for extra in extras for entry in extra)):
        yield entry["name"]


def installed() -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield name and locked versions of every package that an image of ours may hold; newer Pythons have newer ones."""
    packages = locked()
    seen, waiting = set(), list(needed_by(packages["edgeagents"][0]))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name, packages[name]
            waiting += (other for package in packages[name] for other in needed_by(package))


def tags_of(machine: str) -> set[Tag]:
    """Return the wheel tags that Python 3.11 takes on Debian bookworm."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(OLDEST_GLIBC, NEWEST_GLIBC + 1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    pure = [Tag("py3", "none", platform) for platform in (*platforms, "any")]
    return {*cpython_tags((3, 11), platforms=platforms), *pure, Tag("py2.py3", "none", "any")}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_package_of_an_image_has_a_wheel_for(machine: str) -> None:
    fitting, missing, seen = tags_of(machine), [], 0
    for name, versions in installed():
        seen += 1
        wheels = [wheel["url"].rpartition("/")[2] for package in versions for wheel in package.get("wheels", [])]
        if not any(parse_wheel_filename(wheel)[3] & fitting for wheel in wheels):
            missing.append(name)
    assert missing == []
    assert seen > 30, "the lock was read"


def test_the_search_knows_a_wheel_that_does_not_fit() -> None:
    tags = parse_wheel_filename("numpy-2.1.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")[3]
    assert not tags & tags_of("x86_64"), "another Python"
    tags = parse_wheel_filename("numpy-2.1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")[3]
    assert tags & tags_of("x86_64")
    assert not tags & tags_of("aarch64")
