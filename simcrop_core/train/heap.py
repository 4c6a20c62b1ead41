"""The memory of a run on a CPU."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEPT_BYTES, _STEP_BYTES = 2**31 - 1, 2**28


def keep_freed_memory() -> bool:
    """Have the C library keep the memory of freed tensors for the next ones.

    Every step frees hundreds of large tensors and asks for as many. By default each goes back to
    the system and comes anew page by page, which on a virtual machine can take as long as the
    arithmetic. To be called before the first large tensor; the process keeps about a quarter more
    memory.

    Returns
    -------
    bool
        Whether it is so now; False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    wanted = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _STEP_BYTES),
    )
    return all(library.mallopt(name, value) for name, value in wanted)
