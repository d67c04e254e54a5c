"""Memory that was freed, given back to the system.

Source: malloc_trim(3).
"""

import ctypes


def give_back() -> None:
    """Have the C library return what was freed between what was not; does nothing where it has no such function.

    glibc keeps it: some 2 MB after the imports of a service, more after a model was loaded.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
