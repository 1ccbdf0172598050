"""Programs for what would stop or swell the process of the tests: each in a process of its own, with a time limit."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading

from driver import inherited, own_words, until

from yandexgpt.emulator import Emulator

HEAD = """
import asyncio, faulthandler, functools, gc, os, random, signal, sys, threading, time

faulthandler.enable()
faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)

import yandexgpt
from yandexgpt import errors

def until_quiet():
    "Return when no call of this process is under way at the emulator."
    print("quiet?", flush=True)
    assert sys.stdin.readline() == "yes\\n", "calls are still under way at the emulator"

def in_child(use):
    "Fork, and use the client there."
    pid = os.fork()
    if not pid:
        signal.alarm(15)  # a child that hangs dies of it
        try:
            use()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child of a fork could not use the client"
"""
"""How each program begins. One that hangs is ended, and prints where each of its threads was."""

QUIET_SECONDS = 10.0
"""How long a call may go on at the emulator after its end in the program."""


def run(source: str, emulator: Emulator, *arguments: str, limit: float = 60.0, silent: bool = True) -> str:
    """Run a program to its end and return what it printed.

    Args:
        source: what comes after ``HEAD``.
        emulator: what its environment leads it to, and what ``until_quiet`` asks.
        arguments: ``sys.argv[2:]``.
        limit: seconds; a program that takes longer hangs, and is a failure.
        silent: whether it may print nothing to standard error.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning"),
                *("-c", HEAD + source, str(limit), *arguments),
            ],
            env={**inherited(), **emulator.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        end = threading.Timer(limit + 5.0, process.kill)  # should the program not even do that itself
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
        said.seek(0)
        err = own_words(said.read())
    assert process.returncode == 0, f"{process.returncode}: {''.join(printed)}\n{err}"
    assert not (silent and err), err
    return "".join(printed)


def quiet(emulator: Emulator) -> bool:
    """Whether all calls have ended at the emulator, or do so soon."""
    try:
        until(lambda: not emulator.in_flight and all(request.outcome for request in emulator.requests), QUIET_SECONDS)
    except AssertionError:
        return False
    return True
