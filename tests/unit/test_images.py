"""`services/images.sh` chooses its base as it says: what it asks of Docker and debootstrap, told by stand-ins."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PUBLISHED: Final = "python:3.11-slim-bookworm"
OWN: Final = "edgeagents-base:bookworm"
# Notes what it was told; has the images of `images`, and pulls from a registry where the file `registry` is.
DOCKER: Final = """#!/bin/sh
echo "$*" >> told
case "$1 $2" in
  info*) echo x86_64 ;;
  "image inspect") for last; do :; done
    case "$last" in edgeagents-base:* | python:*) grep -qxF "$last" images || exit 1 ;; esac
    case "$4" in *Size*) echo 117000000 ;; *Labels*) cat label ;; esac ;;
  pull*) test -e registry && echo "$3" >> images ;;
  import*) cat > /dev/null; for last; do :; done; echo "$last" >> images; echo "${3#*=}" > label ;;
esac
"""
DEBOOTSTRAP: Final = '#!/bin/sh\necho "debootstrap $*" >> told\nmkdir -p "$4/var/cache/apt" "$4/usr"\n'


class Tree:
    """A copy of what the script needs, with its wheels there already."""

    def __init__(self, folder: Path) -> None:
        """Copy into `folder` what the script looks at."""
        self.folder = folder
        (folder / "services").mkdir()
        for name in ("uv.lock", "services/images.sh", "services/Dockerfile"):
            shutil.copy(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / "edgeagents").symlink_to(ROOT / "edgeagents")
        (folder / "bin").mkdir()
        for name, text in (("docker", DOCKER), ("debootstrap", DEBOOTSTRAP)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        for name in ("told", "images", "label"):
            (folder / name).touch()
        wheels = folder / "build" / "wheels"
        wheels.mkdir(parents=True)
        names = ("uv.lock", "services/images.sh")
        sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
        (wheels / "stamp").write_text(f"x86_64 {hashlib.sha256(sums.encode()).hexdigest()}  -\n")

    def run(self, *images: str, registry: bool = False, **chosen: str) -> subprocess.CompletedProcess[str]:
        """Run the script where these images are there."""
        (self.folder / "images").write_text("".join(f"{image}\n" for image in images))
        if registry:
            (self.folder / "registry").touch()
        kept = {name: value for name, value in os.environ.items() if name not in ("BASE", "BASE_IMAGE")}
        environ = {**kept, **chosen, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        script = [self.folder / "services" / "images.sh"]
        return subprocess.run(script, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=60)

    @property
    def told(self) -> str:
        """What engine and debootstrap were told."""
        return (self.folder / "told").read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_base_that_is_there_is_used_again(tree: Tree) -> None:
    done = tree.run(OWN, registry=True)
    assert done.returncode == 0, done.stderr
    assert f"--build-arg BASE_IMAGE={OWN} " in tree.told
    assert "pull" not in tree.told
    assert "debootstrap" not in tree.told
    assert f"base {OWN}: 117 MB" in done.stdout


def test_one_that_is_made_bears_its_day(tree: Tree) -> None:
    done = tree.run()
    assert done.returncode == 0, done.stderr
    day = (tree.folder / "label").read_text().strip()
    assert f"import --change LABEL edgeagents.base.made={day} - {OWN}\n" in tree.told
    assert len(day.split("-")) == 3
    assert f"base {OWN} of {day}: 117 MB" in done.stdout


@pytest.mark.parametrize("registry", [True, False])
def test_new_fetches_or_makes_it_though_there_is_one(tree: Tree, registry: bool) -> None:
    done = tree.run(PUBLISHED, OWN, registry=registry, BASE="new")
    assert done.returncode == 0, done.stderr
    assert f"pull --quiet {PUBLISHED}\n" in tree.told
    assert ("debootstrap --variant" in tree.told) is not registry
    assert f"--build-arg BASE_IMAGE={PUBLISHED if registry else OWN} " in tree.told


@pytest.mark.parametrize(
    "chosen", [{"BASE": "anew"}, {"BASE": "new", "BASE_IMAGE": "mine:1"}, {"BASE": "x", "BASE_IMAGE": "y"}]
)
def test_what_cannot_be_meant_is_refused_before_anything_is_built(tree: Tree, chosen: dict[str, str]) -> None:
    done = tree.run(OWN, **chosen)
    assert done.returncode == 2
    assert "BASE=" in done.stderr
    assert "build " not in tree.told


def test_a_base_of_ones_own_is_taken_as_it_is(tree: Tree) -> None:
    assert tree.run(BASE_IMAGE="mine:1").returncode == 0
    assert "--build-arg BASE_IMAGE=mine:1 " in tree.told
