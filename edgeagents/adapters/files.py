"""The owner's YAML files -> agents and site; every error names file, field and remedy.

Source: design.md sections 2 and 3.8.
"""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edgeagents.errors import ConfigurationError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.site import Site

MAX_FILE_BYTES: Final = 1_048_576
MAX_VALUES: Final = MAX_FILE_BYTES  # a value takes a byte at least: only aliases and merges make more
MAX_NUMBER_CHARS: Final = 1024  # numbers to the base 60 (`1:0:0`) take time and memory by the square of their length
_NUMBERS: Final = frozenset(("int", "float", "timestamp"))
Looks: TypeAlias = Mapping[Path, tuple[int, int, int]]  # time of change in ns, size, inode
M = TypeVar("M", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, since YAML would let the last one win, silently; and tells each fault's line."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Return what a document holds; refuse it before anything large is built of a few aliases."""
        if _size(node, {}) > MAX_VALUES:
            problem = f"more than {MAX_VALUES} values once its aliases are followed: write fewer"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_document(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return what a node stands for; what the library trips over is a fault of the file, as any other."""
        kind = node.tag.rpartition(":")[2]
        if isinstance(node, yaml.ScalarNode) and kind in _NUMBERS and len(node.value) > MAX_NUMBER_CHARS:
            problem = f"{node.value[:40]!r}… is too long for a number: put a text into quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # `!!bool maybe`, `!!int ''`
            text = node.value[:40] if isinstance(node, yaml.ScalarNode) else str(getattr(node, "id", ""))
            raise yaml.MarkedYAMLError(problem=f"{text!r} is no {kind}", problem_mark=node.start_mark) from error


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many nodes are below one and itself, what an alias names counted each time; at most one too many."""
    if sizes.get(id(node)) == 0:  # it is being counted
        raise yaml.MarkedYAMLError(problem="found unconstructable recursive node", problem_mark=node.start_mark)
    if id(node) not in sizes:
        sizes[id(node)] = 0
        below: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            below = [item for pair in node.value for item in pair]
        sizes[id(node)] = min(MAX_VALUES + 1, 1 + sum(_size(item, sizes) for item in below))
    return sizes[id(node)]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        ConfigurationError: it cannot be read, is no file, is too large or is no YAML.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would hold us up until somebody writes into it
            raise ConfigurationError(f"{path}: no regular file: write one, or take this away")
        if found.st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path}: larger than {MAX_FILE_BYTES} bytes: is this the right file?")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}: does the file exist, may we read it?") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise ConfigurationError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from error


def load_model(kind: type[M], path: Path) -> M:
    """Return a file's content as a model.

    Raises:
        ConfigurationError: a field is missing, unknown or wrong; all of them are named.
    """
    content = load_yaml(path)
    try:
        return kind.model_validate(content if content is not None else {})
    except ValidationError as error:
        problems = [_problem(item["loc"], item["msg"], item["type"], kind) for item in error.errors(include_url=False)]
        raise ConfigurationError(f"{path}: {'; '.join(problems)}") from error


def load_site(path: Path) -> Site:
    """Return the owner's `site.yaml`; see `load_model`."""
    return load_model(Site, path)


def load_agent(path: Path) -> AgentDefinition:
    """Return one agent file; see `load_model`."""
    return load_model(AgentDefinition, path)


def load_agents(folder: Path) -> dict[str, AgentDefinition]:
    """Return all agent files of a folder by agent name.

    Raises:
        ConfigurationError: a file is wrong, or two files declare one name.
    """
    files = agent_files(folder)
    for problem in (*files.wrong.values(), *files.doubled.values()):
        raise ConfigurationError(problem)
    return files.agents


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """What a folder of agent files holds.

    Args:
        agents: by name, those that count.
        doubled: names that two files declare, with what to do: neither counts, as nobody knows which one is meant.
        wrong: files that declare no agent, with what is wrong.
        paths: by name, where the agents that count are declared.
        rivals: by name, where those are declared that two files declare.
    """

    agents: dict[str, AgentDefinition]
    doubled: dict[str, str]
    wrong: dict[Path, str]
    paths: dict[str, Path]
    rivals: dict[str, tuple[Path, ...]] = field(default_factory=dict)


def agent_files(folder: Path) -> AgentFiles:
    """Return what a folder of agent files holds, good and bad.

    Raises:
        ConfigurationError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder: it holds one YAML file per agent")
    declared: dict[str, list[tuple[Path, AgentDefinition]]] = {}
    wrong: dict[Path, str] = {}
    for path in sorted(_paths(folder)):
        try:
            agent = load_agent(path)
        except ConfigurationError as error:
            wrong[path] = str(error)
        else:
            declared.setdefault(agent.name, []).append((path, agent))
    single = {name: found[0] for name, found in declared.items() if len(found) == 1}
    rivals = {name: tuple(path for path, _ in found) for name, found in declared.items() if len(found) > 1}
    doubled = {
        name: f"{' and '.join(map(str, several))} both declare agent {name!r}: keep one of them"
        for name, several in rivals.items()
    }
    agents = {name: agent for name, (_, agent) in single.items()}
    paths = {name: path for name, (path, _) in single.items()}
    return AgentFiles(agents, doubled, wrong, paths, rivals)


def looks_of(folder: Path) -> Looks:
    """Return what tells agent files from what they were when last looked at, by path: time, size and inode."""
    found = {}
    for path in _paths(folder):
        try:
            look = path.stat()
        except OSError:  # gone meanwhile
            continue
        found[path] = (look.st_mtime_ns, look.st_size, look.st_ino)
    return found


def _paths(folder: Path) -> list[Path]:
    """Return where agent files are; hidden ones are an editor's or a system's: `.#hall.yaml`, `._hall.yaml`."""
    return [path for end in ("yaml", "yml") for path in folder.glob(f"*.{end}") if not path.name.startswith(".")]


def _problem(location: tuple[int | str, ...], text: str, kind: str, model: type[BaseModel]) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if kind == "extra_forbidden":
        return f"{where}: unknown field: remove it, or correct its spelling"
    if kind == "missing":
        return f"{where}: missing: add it"
    return f"{where or model.__name__}: {text.removeprefix('Value error, ')}"
