"""A process that is ended by the kernel at its first attempt to open a socket, whoever in it tries.

    python -m tests.sealed SCRIPT [ARGUMENT …]

Source: Linux seccomp(2), filters; the numbers of socket(2) of both architectures.
"""

import ctypes
import platform
import runpy
import struct
import sys
from typing import Final

_SOCKET: Final = {"x86_64": 41, "aarch64": 198}
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def seal() -> None:
    """Have the kernel end this process, with SIGSYS, when any thread of it opens a socket.

    Raises:
        OSError: the kernel refuses.
    """
    steps = (
        (_LOAD_NUMBER, 0, 0, 0), (_JUMP_IF_EQUAL, 0, 1, _SOCKET[platform.machine()]), (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _ALLOW),
    )  # fmt: skip
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(steps), code)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel refuses to seal this process")


if __name__ == "__main__":
    seal()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
