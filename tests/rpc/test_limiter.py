"""The limiter is first in, first out: no waiter is lost or overtaken, and the limit holds."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from yandexgpt._concurrency.limiter import Limiter


class User:
    """A holder or a waiter."""


def no_wake() -> None:
    """A wake callback that does nothing."""


def ended() -> None:
    raise RuntimeError("Event loop is closed")


def holding(limiter: Limiter) -> User:
    user = User()
    assert limiter.acquire(user, no_wake)
    return user


def waiting(limiter: Limiter, wake: Callable[[], Any] = no_wake, gone: Callable[[], bool] | None = None) -> User:
    user = User()
    assert not limiter.acquire(user, wake, gone)
    return user


def free_slots(limiter: Limiter) -> int:
    """Number of free slots."""
    users = []
    while limiter.acquire(user := User(), no_wake):
        users.append(user)
    limiter.release(user)
    for each in reversed(users):
        limiter.release(each)
    return len(users)


@pytest.mark.parametrize("limit", [1, 3])
def test_limit_is_the_maximum_number_of_holders(limit: int) -> None:
    assert free_slots(Limiter(limit)) == limit


def test_released_slot_goes_to_the_first_waiter() -> None:
    limiter, order = Limiter(1), list[str]()
    users = [holding(limiter), *(waiting(limiter, partial(order.append, name)) for name in "abc")]
    for number, expected in enumerate((["a"], ["a", "b"], ["a", "b", "c"])):
        limiter.release(users[number])
        assert order == expected
        assert limiter.holds(users[number + 1])
    assert free_slots(limiter) == 0
    limiter.release(users[3])
    assert free_slots(limiter) == 1


def test_new_caller_is_queued_behind_waiters() -> None:
    limiter, order = Limiter(1), list[str]()
    first = holding(limiter)
    second = waiting(limiter, partial(order.append, "a"))
    limiter.release(first)
    third = waiting(limiter)
    assert order == ["a"]
    assert limiter.holds(second)
    assert not limiter.holds(third)


def test_cancelled_waiter_is_skipped() -> None:
    limiter, order = Limiter(1), list[str]()
    first, second = holding(limiter), waiting(limiter, partial(order.append, "a"))
    third = waiting(limiter, partial(order.append, "b"))
    limiter.release(second)
    limiter.release(first)
    assert order == ["b"]
    assert limiter.holds(third)


def test_waiter_that_cancels_after_notification_releases_its_slot() -> None:
    limiter, order = Limiter(1), list[str]()
    first, second = holding(limiter), waiting(limiter, partial(order.append, "a"))
    third = waiting(limiter, partial(order.append, "b"))
    limiter.release(first)
    limiter.release(second)
    assert order == ["a", "b"]
    assert limiter.holds(third)
    assert free_slots(limiter) == 0


def test_a_waiter_is_notified_by_a_release_after_another_holder_was_collected() -> None:
    limiter, order = Limiter(2), list[str]()
    collected, released = holding(limiter), holding(limiter)
    third = waiting(limiter, partial(order.append, "a"))
    del collected
    gc.collect()
    limiter.release(released)
    assert order == ["a"]
    assert limiter.holds(third)


def test_a_new_holder_does_not_hide_a_waiter_from_the_next_release() -> None:
    limiter, order = Limiter(3), list[str]()
    first, second, third = holding(limiter), holding(limiter), holding(limiter)
    fourth = waiting(limiter, partial(order.append, "a"))
    del first, second
    gc.collect()
    fifth = holding(limiter)
    limiter.release(third)
    assert order == ["a"]
    assert limiter.holds(fourth)
    assert limiter.holds(fifth)


def test_second_release_has_no_effect() -> None:
    limiter, order = Limiter(1), list[str]()
    first = holding(limiter)
    others = [waiting(limiter, partial(order.append, name)) for name in "ab"]
    limiter.release(first)
    limiter.release(first)
    assert order == ["a"]
    assert not limiter.holds(others[1])


def test_a_waiter_of_a_closed_event_loop_is_skipped() -> None:
    limiter, order = Limiter(1), list[str]()
    users = [holding(limiter), waiting(limiter, ended), waiting(limiter, ended)]
    last = waiting(limiter, partial(order.append, "c"))
    limiter.release(users[0])
    assert order == ["c"]
    limiter.release(users[1])
    assert order == ["c"]
    assert limiter.holds(last)
    assert free_slots(limiter) == 0


def test_slot_held_in_a_closed_event_loop_is_free() -> None:
    limiter, loop = Limiter(1), asyncio.new_event_loop()
    user = User()
    assert limiter.acquire(user, no_wake, loop.is_closed)
    loop.close()
    assert free_slots(limiter) == 1


def test_slot_of_a_garbage_collected_holder_is_free() -> None:
    limiter = Limiter(2)
    users: list[Any] = [holding(limiter), holding(limiter)]
    users[0].cycle = users
    users.clear()
    del users
    gc.collect()
    assert free_slots(limiter) == 2


def test_unexpected_error_of_a_wake_callback_is_raised() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    limiter = Limiter(1)
    first = holding(limiter)
    second = waiting(limiter, fails)
    with pytest.raises(ZeroDivisionError):
        limiter.release(first)
    assert limiter.holds(second)


def test_reset_removes_holders_and_waiters() -> None:
    limiter = Limiter(2)
    users = [holding(limiter), holding(limiter), waiting(limiter)]
    limiter.reset()
    assert free_slots(limiter) == 2
    assert users


def test_reentrant_use_at_any_line_neither_hangs_nor_loses_a_slot() -> None:
    limiter = Limiter(2)
    depth = 0

    def use(*_: Any) -> Any:
        """At each line of the limiter, another user acquires and releases it."""
        nonlocal depth
        if depth == 0:
            depth = 1
            user = User()
            limiter.acquire(user, no_wake)
            limiter.release(user)
            depth = 0
        return use

    def trace(frame: Any, _: str, __: Any) -> Any:
        return use if frame.f_code.co_filename.endswith("limiter.py") else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(20):
            users = [User() for _ in range(4)]
            for user in users:
                limiter.acquire(user, no_wake)
            assert [limiter.holds(user) for user in users] == [True, True, False, False]
            for user in users:
                limiter.release(user)
    finally:
        sys.settrace(before)
    assert free_slots(limiter) == 2


def test_concurrent_threads_stay_within_the_limit() -> None:
    limiter, lock = Limiter(3), threading.Lock()
    held, most, done = 0, 0, 0
    start = threading.Barrier(12)

    def work() -> None:
        nonlocal held, most, done
        start.wait()
        for _ in range(40):
            user, turn = User(), threading.Event()
            if not limiter.acquire(user, turn.set):
                assert turn.wait(30)
                assert limiter.holds(user)
            with lock:
                held += 1
                most = max(most, held)
            with lock:
                held -= 1
                done += 1
            limiter.release(user)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == 12 * 40
    assert most <= 3
    assert free_slots(limiter) == 3


class LimiterMachine(RuleBasedStateMachine):
    """Compares a limiter with a simple model: holders, waiters, and waiters of closed event loops."""

    user_ids = Bundle("user_ids")

    @initialize(limit=st.integers(1, 4))
    def open(self, limit: int) -> None:
        self.limit = limit
        self.limiter = Limiter(limit)
        self.users: list[User] = []
        self.holding: set[int] = set()
        self.queue: list[int] = []
        self.closed: set[int] = set()
        self.woken: list[int] = []
        self.due: list[int] = []

    @rule(target=user_ids)
    def acquire(self) -> int:
        user_id = len(self.users)
        self.users.append(User())
        holds = self.limiter.acquire(self.users[user_id], partial(self.wake, user_id))
        assert holds == (len(self.holding) < self.limit)
        if holds:
            self.holding.add(user_id)
        else:
            self.queue.append(user_id)
        return user_id

    def wake(self, user_id: int) -> None:
        if user_id in self.closed:
            raise RuntimeError("Event loop is closed")
        self.woken.append(user_id)

    @rule(user_id=user_ids)
    def close_loop(self, user_id: int) -> None:
        if user_id in self.queue:
            self.closed.add(user_id)

    @rule(user_id=consumes(user_ids), dropped=st.booleans())
    def go(self, user_id: int, dropped: bool) -> None:
        """Release the slot or leave the queue. A dropped waiter is garbage-collected instead."""
        user = self.users[user_id]
        if dropped and user_id in self.queue:
            self.users[user_id] = User()
            del user
        else:
            self.limiter.release(user)
        if user_id in self.holding:
            self.holding.remove(user_id)
            while self.queue:
                first = self.queue.pop(0)
                if first not in self.closed:
                    self.holding.add(first)
                    self.due.append(first)
                    break
        elif user_id in self.queue:
            self.queue.remove(user_id)

    @invariant()
    def order_is_kept_and_no_user_is_lost(self) -> None:
        assert self.woken == self.due
        assert all(self.limiter.holds(self.users[user_id]) for user_id in self.holding)
        assert not any(self.limiter.holds(self.users[user_id]) for user_id in self.queue)
        assert not self.queue or len(self.holding) == self.limit


LimiterMachine.TestCase.settings = settings(stateful_step_count=30)
TestLimiter = LimiterMachine.TestCase


def test_garbage_collection_during_use_is_not_an_error() -> None:
    limiter = Limiter(20)
    before = gc.get_threshold()
    gc.set_threshold(2)
    try:
        for _ in range(2000):
            users: list[Any] = [User() for _ in range(3)]
            users[0].cycle = users  # garbage-collected during the following calls
            for user in users:
                limiter.acquire(user, no_wake)
            late = User()
            limiter.acquire(late, no_wake)
            limiter.holds(late)
            limiter.release(late)
    finally:
        gc.set_threshold(*before)
    del users, user
    gc.collect()
    assert free_slots(limiter) == 20
