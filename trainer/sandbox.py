"""Shutting a process in: it may compute, take so much memory, and use the pipes that are open already.

Linux has a filter of system calls (seccomp): after `enter` the process opens no file and no connection, starts no
process, signals nobody and makes no memory executable, and nothing lifts that again. Limits on memory, processor time
and file sizes hold on macOS too, as far as its kernel keeps them. Windows has neither; what is left there is that the
work happens in a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import struct
import sys
from typing import Literal

Strength = Literal["sealed", "limited", "apart"]
"""What `enter` could do: a filter of system calls and limits, limits alone, or nothing but another process."""


def enter(memory_mib: int) -> Strength:
    """Give up, for good, what pure computation does not need.

    Everything the process will use must be imported before; a later import finds nothing.

    Args:
        memory_mib: address space in MiB; Python with an image library needs about 150.
    """
    limited = _limit(memory_mib)
    if _seal():
        return "sealed"
    return "limited" if limited else "apart"


def allow_seconds(seconds: float) -> None:
    """End this process when it has computed for that long from now; where it can't be, it may go on."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        until = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until, most))


def _limit(memory_mib: int) -> bool:
    try:
        import resource
    except ImportError:
        return False
    limits = {resource.RLIMIT_AS: memory_mib * 2**20, resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    if sys.platform != "linux":
        # Linux counts threads too, and its filter stops processes anyway.
        limits[resource.RLIMIT_NPROC] = 0
    for kind, value in limits.items():
        # macOS refuses some limits, and nobody may raise one that is already lower.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))
    return True


# x86-64 and AArch64 number their calls differently; None where an architecture has no such call.
_CALLS: dict[str, tuple[int | None, int]] = {
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "lseek": (8, 62),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "read": (0, 63),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124),
    "set_robust_list": (273, 99),
    "sigaltstack": (131, 132),
    "write": (1, 64),
    "writev": (20, 66),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MMAP, _MPROTECT = (9, 222), (10, 226)
_PRLIMIT, _TGKILL = (302, 261), (234, 131)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> column of the tables above, and how the kernel names it (linux/audit.h)."""

# linux/bpf_common.h and linux/seccomp.h
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_NO_PERMISSION, _NO_SUCH_CALL = 1, 38  # errno
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_MAKES_A_THREAD, _EXECUTABLE = 0x10000, 0x4

_Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, if false, operand."""


def _seal() -> bool:
    """Install the filter; False where the system has none that we know."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    program = _program(*_ARCHITECTURES[platform.machine()])
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code, len(code))
    filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(held)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _FILTER, ctypes.addressof(filter_), 0, 0) == 0)


def _program(column: int, architecture: int) -> list[_Instruction]:
    """The filter: what is in the table goes, some calls with a condition, the rest is told "no permission"."""
    refused, missing = (_RETURN, 0, 0, _REFUSE | _NO_PERMISSION), (_RETURN, 0, 0, _REFUSE | _NO_SUCH_CALL)
    allowed = (_RETURN, 0, 0, _ALLOW)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        refused,
        (_LOAD, 0, 0, _NUMBER),
        # The C library then tries clone, whose flags a filter can read.
        (_JUMP_IF_EQUAL, 0, 1, _CLONE3[column]),
        missing,
    ]
    for calls in _CALLS.values():
        number = calls[column]
        if number is not None:
            program += [(_JUMP_IF_EQUAL, 0, 1, number), allowed]
    for number, argument, test, operand, goes in (
        (_CLONE[column], 0, _JUMP_IF_ANY_BIT, _MAKES_A_THREAD, True),
        (_MMAP[column], 2, _JUMP_IF_ANY_BIT, _EXECUTABLE, False),
        (_MPROTECT[column], 2, _JUMP_IF_ANY_BIT, _EXECUTABLE, False),
        (_PRLIMIT[column], 0, _JUMP_IF_EQUAL, 0, True),
        (_TGKILL[column], 0, _JUMP_IF_EQUAL, os.getpid(), True),
    ):
        then, otherwise = (allowed, refused) if goes else (refused, allowed)
        program += [
            (_JUMP_IF_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
            (test, 0, 1, operand),
            then,
            otherwise,
        ]
    return [*program, refused]
