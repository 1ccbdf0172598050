"""First come, first served: nobody is lost, nobody overtakes, and never more hold it than may."""

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
    """Somebody who may hold it."""


def nobody() -> None:
    """Nobody is to be woken."""


def ended() -> None:
    raise RuntimeError("Event loop is closed")


def inside(limiter: Limiter) -> User:
    user = User()
    assert limiter.acquire(user, nobody)
    return user


def waiting(limiter: Limiter, wake: Callable[[], Any] = nobody, gone: Callable[[], bool] | None = None) -> User:
    user = User()
    assert not limiter.acquire(user, wake, gone)
    return user


def free_places(limiter: Limiter) -> int:
    """How many could hold it at once besides."""
    users = []
    while limiter.acquire(user := User(), nobody):
        users.append(user)
    limiter.release(user)
    for each in reversed(users):
        limiter.release(each)
    return len(users)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_is_how_many_hold_a_place_at_once(limit: int) -> None:
    assert free_places(Limiter(limit)) == limit


def test_a_free_place_goes_to_the_first_waiter() -> None:
    limiter, order = Limiter(1), list[str]()
    users = [inside(limiter), *(waiting(limiter, partial(order.append, name)) for name in "abc")]
    for number, expected in enumerate((["a"], ["a", "b"], ["a", "b", "c"])):
        limiter.release(users[number])
        assert order == expected
        assert limiter.holds(users[number + 1])
    assert free_places(limiter) == 0
    limiter.release(users[3])
    assert free_places(limiter) == 1


def test_a_new_caller_does_not_overtake_a_waiter() -> None:
    limiter, order = Limiter(1), list[str]()
    first = inside(limiter)
    second = waiting(limiter, partial(order.append, "a"))
    limiter.release(first)
    third = waiting(limiter)
    assert order == ["a"]
    assert limiter.holds(second)
    assert not limiter.holds(third)


def test_a_waiter_that_gives_up_is_skipped() -> None:
    limiter, order = Limiter(1), list[str]()
    first, second = inside(limiter), waiting(limiter, partial(order.append, "a"))
    third = waiting(limiter, partial(order.append, "b"))
    limiter.release(second)
    limiter.release(first)
    assert order == ["b"]
    assert limiter.holds(third)


def test_a_waiter_that_gives_up_as_it_is_served_passes_the_place_on() -> None:
    limiter, order = Limiter(1), list[str]()
    first, second = inside(limiter), waiting(limiter, partial(order.append, "a"))
    third = waiting(limiter, partial(order.append, "b"))
    limiter.release(first)
    limiter.release(second)
    assert order == ["a", "b"]
    assert limiter.holds(third)
    assert free_places(limiter) == 0


def test_a_waiter_is_notified_by_a_release_after_another_holder_was_collected() -> None:
    limiter, order = Limiter(2), list[str]()
    collected, released = inside(limiter), inside(limiter)
    third = waiting(limiter, partial(order.append, "a"))
    del collected
    gc.collect()
    limiter.release(released)
    assert order == ["a"]
    assert limiter.holds(third)


def test_a_new_holder_does_not_hide_a_waiter_from_the_next_release() -> None:
    limiter, order = Limiter(3), list[str]()
    first, second, third = inside(limiter), inside(limiter), inside(limiter)
    fourth = waiting(limiter, partial(order.append, "a"))
    del first, second
    gc.collect()
    fifth = inside(limiter)
    limiter.release(third)
    assert order == ["a"]
    assert limiter.holds(fourth)
    assert limiter.holds(fifth)


def test_a_second_release_changes_nothing() -> None:
    limiter, order = Limiter(1), list[str]()
    first = inside(limiter)
    others = [waiting(limiter, partial(order.append, name)) for name in "ab"]
    limiter.release(first)
    limiter.release(first)
    assert order == ["a"]
    assert not limiter.holds(others[1])


def test_a_waiter_of_a_closed_event_loop_is_skipped() -> None:
    limiter, order = Limiter(1), list[str]()
    users = [inside(limiter), waiting(limiter, ended), waiting(limiter, ended)]
    last = waiting(limiter, partial(order.append, "c"))
    limiter.release(users[0])
    assert order == ["c"]
    limiter.release(users[1])
    assert order == ["c"]
    assert limiter.holds(last)
    assert free_places(limiter) == 0


def test_a_place_held_in_an_event_loop_that_was_closed_is_free() -> None:
    limiter, loop = Limiter(1), asyncio.new_event_loop()
    user = User()
    assert limiter.acquire(user, nobody, loop.is_closed)
    loop.close()
    assert free_places(limiter) == 1


def test_a_place_whose_holder_was_collected_is_free() -> None:
    limiter = Limiter(2)
    users: list[Any] = [inside(limiter), inside(limiter)]
    users[0].cycle = users
    users.clear()
    del users
    gc.collect()
    assert free_places(limiter) == 2


def test_an_unexpected_error_of_a_wake_up_is_raised() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    limiter = Limiter(1)
    first = inside(limiter)
    second = waiting(limiter, fails)
    with pytest.raises(ZeroDivisionError):
        limiter.release(first)
    assert limiter.holds(second)


def test_after_a_reset_nobody_holds_it_or_waits() -> None:
    limiter = Limiter(2)
    users = [inside(limiter), inside(limiter), waiting(limiter)]
    limiter.reset()
    assert free_places(limiter) == 2
    assert users


def test_a_signal_handler_that_uses_it_at_any_line_neither_hangs_nor_loses_a_place() -> None:
    limiter = Limiter(2)
    depth = 0

    def use(*_: Any) -> Any:
        """At each line of the limiter, somebody else comes and goes."""
        nonlocal depth
        if depth == 0:
            depth = 1
            user = User()
            limiter.acquire(user, nobody)
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
                limiter.acquire(user, nobody)
            assert [limiter.holds(user) for user in users] == [True, True, False, False]
            for user in users:
                limiter.release(user)
    finally:
        sys.settrace(before)
    assert free_places(limiter) == 2


def test_threads_stay_within_the_limit() -> None:
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
    assert free_places(limiter) == 3


class LimiterMachine(RuleBasedStateMachine):
    """A limiter beside the simplest model of one: who holds it, who waits, and whose event loop is closed."""

    people = Bundle("people")

    @initialize(limit=st.integers(1, 4))
    def open(self, limit: int) -> None:
        self.limit = limit
        self.limiter = Limiter(limit)
        self.users: list[User] = []
        self.inside: set[int] = set()
        self.queue: list[int] = []
        self.closed: set[int] = set()
        self.woken: list[int] = []
        self.due: list[int] = []

    @rule(target=people)
    def acquire(self) -> int:
        person = len(self.users)
        self.users.append(User())
        holds = self.limiter.acquire(self.users[person], partial(self.wake, person))
        assert holds == (len(self.inside) < self.limit)
        if holds:
            self.inside.add(person)
        else:
            self.queue.append(person)
        return person

    def wake(self, person: int) -> None:
        if person in self.closed:
            raise RuntimeError("Event loop is closed")
        self.woken.append(person)

    @rule(person=people)
    def close_loop(self, person: int) -> None:
        if person in self.queue:
            self.closed.add(person)

    @rule(person=consumes(people), dropped=st.booleans())
    def go(self, person: int, dropped: bool) -> None:
        """Release it, or stop waiting, whichever it is; or be collected while others go."""
        user = self.users[person]
        if dropped and person in self.queue:
            self.users[person] = User()
            del user
        else:
            self.limiter.release(user)
        if person in self.inside:
            self.inside.remove(person)
            while self.queue:
                first = self.queue.pop(0)
                if first not in self.closed:
                    self.inside.add(first)
                    self.due.append(first)
                    break
        elif person in self.queue:
            self.queue.remove(person)

    @invariant()
    def order_is_kept_and_nobody_is_lost(self) -> None:
        assert self.woken == self.due
        assert all(self.limiter.holds(self.users[person]) for person in self.inside)
        assert not any(self.limiter.holds(self.users[person]) for person in self.queue)
        assert not self.queue or len(self.inside) == self.limit


LimiterMachine.TestCase.settings = settings(stateful_step_count=30)
TestLimiter = LimiterMachine.TestCase


def test_a_collection_while_the_queue_is_looked_at_is_no_error() -> None:
    limiter = Limiter(20)
    before = gc.get_threshold()
    gc.set_threshold(2)
    try:
        for _ in range(2000):
            users: list[Any] = [User() for _ in range(3)]
            users[0].cycle = users  # collected in the middle of what comes next
            for user in users:
                limiter.acquire(user, nobody)
            late = User()
            limiter.acquire(late, nobody)
            limiter.holds(late)
            limiter.release(late)
    finally:
        gc.set_threshold(*before)
    del users, user
    gc.collect()
    assert free_places(limiter) == 20
