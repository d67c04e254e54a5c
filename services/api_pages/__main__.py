"""Writes docs/api; with `--check`, says whether what is committed is fresh: `python -m services.api_pages`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from edgeagents.adapters.wire import PB_CLASSES
from services.api_pages import asyncapi, openapi
from services.api_pages.page import page

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "api"


def pages() -> dict[str, str]:
    """Return the text of each file of docs/api, by its name."""
    documents = openapi.documents()
    files = {f"{name}.openapi.json": document for name, document in documents.items()}
    files["messages.asyncapi.json"] = asyncapi.document()
    texts = {name: json.dumps(document, indent=1, ensure_ascii=False) + "\n" for name, document in files.items()}
    return {**texts, "README.md": page(documents, frozenset(model.__name__ for model in PB_CLASSES))}


def main() -> int:
    """Write the files, or compare them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=FOLDER, help="the folder")
    parser.add_argument("--check", action="store_true", help="only say whether the folder is fresh")
    arguments = parser.parse_args()
    made, folder = pages(), arguments.to
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*") if path.is_file()}
    if arguments.check:
        stale = sorted(name for name in made.keys() | present.keys() if made.get(name) != present.get(name))
        if stale:
            print(f"{folder} is stale ({', '.join(stale)}): run `make api-pages` and commit", file=sys.stderr)
        return 1 if stale else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"wrote {len(made)} files to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
