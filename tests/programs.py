"""Runs programs that would disturb the test process, each in another process with a time limit."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading

from driver import subprocess_environment, until, without_fork_messages

from yandexgpt.emulator import Emulator

HEAD = """
import asyncio, faulthandler, functools, gc, os, random, signal, sys, threading, time

faulthandler.enable()
faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)

import yandexgpt
from yandexgpt import errors

def until_quiet():
    "Return when no call of this process is active at the emulator."
    print("quiet?", flush=True)
    assert sys.stdin.readline() == "yes\\n", "calls are still active at the emulator"

def in_child(use):
    "Fork, and use the client there."
    pid = os.fork()
    if not pid:
        signal.alarm(15)  # kills a child that hangs
        try:
            use()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child of a fork could not use the client"
"""
"""The first lines of each program. A program that hangs prints the stack of each thread and exits."""

QUIET_SECONDS = 10.0
"""Seconds that a call may stay active at the emulator after it has ended in the program."""


def run(source: str, emulator: Emulator, *arguments: str, limit: float = 60.0, silent: bool = True) -> str:
    """Run a program to its end and return what it printed.

    Args:
        source: the code after ``HEAD``.
        emulator: the emulator that the environment names and that ``until_quiet`` checks.
        arguments: ``sys.argv[2:]``.
        limit: time limit in seconds. A program that takes longer is a failure.
        silent: fail if the program prints to standard error.
    """
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"),
                *("-c", HEAD + source, str(limit), *arguments),
            ],
            env={**subprocess_environment(), **emulator.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        end = threading.Timer(limit + 5.0, process.kill)  # in case the program cannot end itself
        end.start()
        assert process.stdin is not None
        assert process.stdout is not None
        printed = []
        with process, process.stdin, process.stdout:
            for line in process.stdout:
                if line == "quiet?\n":
                    process.stdin.write("yes\n" if quiet(emulator) else "no\n")
                    process.stdin.flush()
                else:
                    printed.append(line)
        end.cancel()
        stderr.seek(0)
        err = without_fork_messages(stderr.read())
    assert process.returncode == 0, f"{process.returncode}: {''.join(printed)}\n{err}"
    assert not (silent and err), err
    return "".join(printed)


def quiet(emulator: Emulator) -> bool:
    """Whether all calls at the emulator end within `QUIET_SECONDS`."""
    try:
        until(lambda: not emulator.in_flight and all(request.outcome for request in emulator.requests), QUIET_SECONDS)
    except AssertionError:
        return False
    return True
