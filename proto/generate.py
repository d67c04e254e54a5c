"""Generate `edgeagents/pb` from `proto/`; with `--check`, say whether what is committed is fresh.

python proto/generate.py [--check]
"""

import argparse
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "edgeagents" / "pb"
HEADER = '"""Generated from proto/ by proto/generate.py; only `adapters/wire.py` imports it."""\n'


def generate(into: Path) -> dict[str, str]:
    """Run protoc and return file name -> text, with imports that fit the package."""
    from grpc_tools import protoc

    sources = sorted((ROOT / "proto").rglob("*.proto"))
    includes = [f"-I{ROOT / 'proto'}", f"-I{files('grpc_tools') / '_proto'}"]
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    arguments = [
        "protoc",
        *includes,
        f"--plugin=protoc-gen-mypy={plugin}",
        f"--python_out={into}",
        f"--mypy_out=quiet:{into}",
    ]
    if protoc.main([*arguments, *map(str, sources)]) != 0:
        raise SystemExit("protoc failed: see above")
    result = {"__init__.py": HEADER}
    for path in sorted([*into.rglob("*.py"), *into.rglob("*.pyi")]):
        text = re.sub(r"from edgeagents\.v1 import", "from edgeagents.pb import", path.read_text())
        result[path.name] = text
    return result


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether edgeagents/pb is fresh")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
    if arguments.check:
        stale = [
            name for name, text in fresh.items() if not (TARGET / name).exists() or (TARGET / name).read_text() != text
        ]
        if stale:
            print(f"edgeagents/pb is stale ({', '.join(stale)}): run `make proto` and commit", file=sys.stderr)
            return 1
        print("edgeagents/pb is fresh")
        return 0
    TARGET.mkdir(exist_ok=True)
    for name, text in fresh.items():
        (TARGET / name).write_text(text)
    print(f"wrote {len(fresh)} files to {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
