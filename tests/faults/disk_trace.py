"""What would be left on a disk after a power cut: file contents as of their last fsync, read from a trace of strace.

A file holds what it held when its last fsync or fdatasync began, or its last write with O_SYNC or O_DSYNC was done; one
that was never synced is empty. Names (create, rename, remove) are lenient, as on a journaling file system such as ext4:
any fsync makes all names so far last; names changed since the last one are as before. Left out: writes through mmap
(SQLite's `-shm`, which it makes anew), torn sectors, and disks that lie about fsync.

Source: issue "Nothing lost"; open(2), fsync(2), strace(1).
"""

import codecs
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,write,pwrite64,writev,pwritev,pwritev2,lseek,ftruncate,truncate,"
    "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,fsync,fdatasync"
)
_DONE = re.compile(rb"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(rb"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(rb"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)")
_TEXT = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(rb"^(\d+)<(.*?)>")
_FOLDER = re.compile(rb"^(?:AT_FDCWD|\d+)<(.*?)>")


def traced(strace: str, log: Path, command: Sequence[str]) -> list[str]:
    """Return a command that runs another one and writes down what it does to files.

    The tracer is a process of its own that outlives what it traces, so that a kill -9 leaves a whole log.
    """
    options = ["-f", "-DD", "-qq", "-y", "-s", str(16 << 20), "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(log)]
    return [strace, *options, *command]


def is_whole(log: Path, pid: int) -> bool:
    """Say whether a log holds everything up to the end of the process that was traced."""
    ends = re.compile(rf"^{pid} +\+\+\+ ".encode(), re.MULTILINE)  # short ids are padded
    return log.exists() and ends.search(log.read_bytes()[-4096:]) is not None


@dataclass
class File:
    """A file's bytes now, and those that a power cut would leave."""

    now: bytearray = field(default_factory=bytearray)
    kept: bytes = b""

    def write(self, data: bytes, at: int) -> None:
        """Put bytes somewhere."""
        if at > len(self.now):
            self.now.extend(bytes(at - len(self.now)))
        self.now[at : at + len(data)] = data

    def resize(self, size: int) -> None:
        """Cut the file, or fill it with zeros."""
        del self.now[size:]
        self.now.extend(bytes(size - len(self.now)))


@dataclass
class Open:
    """An open file: its place, and what its flags ask for."""

    file: File
    place: int = 0
    appends: bool = False
    syncs: bool = False


class Disk:
    """One folder, followed through a trace."""

    def __init__(self, folder: Path) -> None:
        """Begin with what is in the folder now, all of it on disk."""
        self.folder = folder
        self._root = os.fsencode(folder)
        self._names: dict[bytes, File | None] = {}  # None: a folder
        for path in sorted(folder.rglob("*")) if folder.exists() else ():
            data = None if path.is_dir() else path.read_bytes()
            self._names[os.fsencode(path)] = None if data is None else File(bytearray(data), data)
        self._kept_names = dict(self._names)
        self._open: dict[int, Open] = {}
        self._begun: dict[bytes, tuple[bytes, bytes]] = {}

    def follow(self, log: Path) -> None:
        """Take a whole trace in."""
        for line in log.read_bytes().split(b"\n"):
            if found := _BEGUN.match(line):
                task, call, arguments = found.groups()
                self._begun[task] = (arguments, self._sync_begins(call, arguments))
            elif found := _RESUMED.match(line):
                task, call, rest, result = found.groups()
                arguments, at_begin = self._begun.pop(task, (b"", b""))
                self._done(call, arguments + rest, int(result), at_begin)
            elif found := _DONE.match(line):
                _, call, arguments, result = found.groups()
                self._done(call, arguments, int(result), self._sync_begins(call, arguments))

    def _sync_begins(self, call: bytes, arguments: bytes) -> bytes:
        """Return what an fsync that begins now covers: what is written while it runs may be left out of it."""
        opened = self._opened(arguments) if call in (b"fsync", b"fdatasync") else None
        return bytes(opened.file.now) if opened is not None else b""

    def rebuild(self) -> None:
        """Make the folder what it would be after a power cut at the end of the trace."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, file in sorted(self._kept_names.items(), key=lambda item: item[0]):
            path = Path(os.fsdecode(name))
            if file is None:
                path.mkdir(parents=True, exist_ok=True)
            elif not name.endswith(b"-shm"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.kept)

    # --- calls -----------------------------------------------------------------------------------

    def _done(self, call: bytes, arguments: bytes, result: int, at_begin: bytes) -> None:
        if result < 0:
            return
        match call:
            case b"open" | b"openat" | b"creat":
                self._opens(call, arguments, result)
            case b"close":
                self._open.pop(_number(arguments), None)
            case b"dup" | b"dup2" | b"dup3":
                self._copy(arguments, result)
            case b"fcntl" if b"F_DUPFD" in arguments:
                self._copy(arguments, result)
            case b"fsync" | b"fdatasync":
                self._sync(arguments, at_begin)
            case b"rename" | b"renameat" | b"renameat2" | b"link" | b"linkat":
                self._rename(call, *self._paths(call, arguments, 2))
            case b"unlink" | b"unlinkat" | b"rmdir":
                self._names.pop(self._paths(call, arguments, 1)[0], None)
            case b"mkdir" | b"mkdirat":
                self._name(self._paths(call, arguments, 1)[0], None)
            case b"truncate":
                file = self._names.get(self._paths(call, arguments, 1)[0])
                if file is not None:
                    file.resize(int(arguments.rsplit(b",", 1)[1]))
            case _:
                self._on_open(call, arguments, result)

    def _on_open(self, call: bytes, arguments: bytes, result: int) -> None:
        opened = self._opened(arguments)
        if opened is None:
            return
        match call:
            case b"lseek":
                opened.place = result
            case b"ftruncate":
                opened.file.resize(int(arguments.rsplit(b",", 1)[1]))
            case b"write" | b"writev":
                at = len(opened.file.now) if opened.appends else opened.place
                opened.file.write(_data(arguments)[:result], at)
                opened.place = at + result
            case b"pwrite64":
                opened.file.write(_data(arguments)[:result], int(arguments.rsplit(b",", 1)[1]))
            case b"pwritev" | b"pwritev2":
                opened.file.write(_data(arguments)[:result], int(arguments.rsplit(b"]", 1)[1].split(b",")[2]))
        if opened.syncs:
            opened.file.kept = bytes(opened.file.now)
            self._kept_names = dict(self._names)

    def _opens(self, call: bytes, arguments: bytes, descriptor: int) -> None:
        (path,) = self._paths(call, arguments, 1)
        self._open.pop(descriptor, None)
        if not self._is_inside(path) or b"O_DIRECTORY" in arguments:
            return
        flags = _TEXT.sub(b"", arguments)
        file = self._names.get(path)
        if file is None:
            if path in self._names or not (b"O_CREAT" in flags or call == b"creat"):
                return  # a folder
            file = self._names[path] = File()
        if b"O_TRUNC" in flags or call == b"creat":
            file.resize(0)
        syncs = b"O_SYNC" in flags or b"O_DSYNC" in flags
        self._open[descriptor] = Open(file, appends=b"O_APPEND" in flags, syncs=syncs)

    def _copy(self, arguments: bytes, descriptor: int) -> None:
        opened = self._opened(arguments)
        self._open.pop(descriptor, None)
        if opened is not None:
            self._open[descriptor] = opened

    def _sync(self, arguments: bytes, at_begin: bytes) -> None:
        opened = self._opened(arguments)
        if opened is not None:
            opened.file.kept = at_begin
        path = _DESCRIPTOR.match(arguments)
        if opened is not None or (path and self._is_inside(_plain(path[2]) + b"/")):
            self._kept_names = dict(self._names)

    def _rename(self, call: bytes, old: bytes, new: bytes) -> None:
        if not self._is_inside(old):
            return
        moved = {name: file for name, file in self._names.items() if name == old or name.startswith(old + b"/")}
        for name, file in moved.items():
            if call not in (b"link", b"linkat"):
                del self._names[name]
            self._name(new + name[len(old) :], file)

    def _name(self, path: bytes, file: File | None) -> None:
        if self._is_inside(path):
            self._names[path] = file

    # --- words of a line -------------------------------------------------------------------------

    def _opened(self, arguments: bytes) -> Open | None:
        return self._open.get(_number(arguments))

    def _is_inside(self, path: bytes) -> bool:
        return path.startswith(self._root + b"/")

    def _paths(self, call: bytes, arguments: bytes, count: int) -> list[bytes]:
        """Return the absolute paths that a call names."""
        found = []
        for text in list(_TEXT.finditer(arguments))[:count]:
            before = (
                arguments[: text.start()].rstrip(b", ").rsplit(b", ", 1)[-1] if call.endswith((b"at", b"at2")) else b""
            )
            folder = _FOLDER.match(before)
            found.append(os.path.normpath(os.path.join(_plain(folder[1]) if folder else b"", _plain(text[1]))))
        return found + [b""] * (count - len(found))


def _number(arguments: bytes) -> int:
    found = re.match(rb"\d+", arguments)
    return int(found[0]) if found else -1


def _plain(text: bytes) -> bytes:
    return codecs.escape_decode(text)[0]  # type: ignore[attr-defined, no-any-return]  # C's escapes, as strace writes them


def _data(arguments: bytes) -> bytes:
    return b"".join(_plain(text) for text in _TEXT.findall(arguments))
