"""First come, first served: nobody is lost, nobody overtakes, and never more inside than there are places."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from yandexgpt.line import Line, Waiter


def nobody() -> None:
    raise AssertionError("woken although nobody waits")


def ended() -> None:
    raise RuntimeError("Event loop is closed")


def join(line: Line, wake: Callable[[], Any]) -> Waiter:
    waiter = line.enter(wake)
    assert waiter is not None
    return waiter


def free_places(line: Line) -> int:
    """How many can go in at once; they stay in."""
    count = 0
    while (waiter := line.enter(nobody)) is None:
        count += 1
    line.abandon(waiter)
    return count


@pytest.mark.parametrize("places", [1, 3])
def test_as_many_go_in_at_once_as_there_are_places(places: int) -> None:
    assert free_places(Line(places)) == places


def test_a_place_goes_to_the_first_in_line() -> None:
    line, order = Line(1), []
    assert line.enter(nobody) is None
    for name in "abc":
        join(line, partial(order.append, name))
    for expected in (["a"], ["a", "b"], ["a", "b", "c"]):
        line.leave()
        assert order == expected
    assert free_places(line) == 0
    line.leave()
    assert free_places(line) == 1


def test_nobody_overtakes_those_in_line() -> None:
    line, order = Line(1), []
    line.enter(nobody)
    join(line, partial(order.append, "a"))
    line.leave()
    assert line.enter(nobody) is not None
    assert order == ["a"]


def test_somebody_who_stops_waiting_is_passed_over() -> None:
    line, order = Line(1), []
    line.enter(nobody)
    first = join(line, nobody)
    join(line, partial(order.append, "b"))
    line.abandon(first)
    line.leave()
    assert order == ["b"]


def test_somebody_who_stops_waiting_when_the_turn_has_come_hands_the_place_on() -> None:
    line, order = Line(1), []
    line.enter(nobody)
    first = join(line, partial(order.append, "a"))
    join(line, partial(order.append, "b"))
    line.leave()
    line.abandon(first)
    assert order == ["a", "b"]
    assert free_places(line) == 0


def test_a_place_that_nobody_wants_any_more_is_free() -> None:
    line = Line(1)
    line.enter(nobody)
    first = join(line, lambda: None)
    line.leave()
    line.abandon(first)
    assert free_places(line) == 1


def test_stopping_twice_before_the_turn_changes_nothing() -> None:
    line = Line(1)
    line.enter(nobody)
    first = join(line, nobody)
    line.abandon(first)
    line.abandon(first)
    assert free_places(line) == 0
    line.leave()
    assert free_places(line) == 1


def test_a_waiter_whose_event_loop_has_ended_is_passed_over() -> None:
    line, order = Line(1), []
    line.enter(nobody)
    join(line, ended)
    join(line, ended)
    join(line, partial(order.append, "c"))
    line.leave()
    assert order == ["c"]
    assert free_places(line) == 0


def test_a_place_offered_only_to_event_loops_that_have_ended_is_free() -> None:
    line = Line(1)
    line.enter(nobody)
    join(line, ended)
    line.leave()
    assert free_places(line) == 1


def test_a_waiter_that_was_passed_over_has_no_place_to_give_back() -> None:
    line = Line(1)
    line.enter(nobody)
    gone = join(line, ended)
    line.leave()
    line.abandon(gone)
    assert free_places(line) == 1


def test_a_waiter_that_was_passed_over_cannot_give_away_the_place_of_the_next() -> None:
    line, order = Line(1), []
    line.enter(nobody)
    gone = join(line, ended)
    join(line, partial(order.append, "b"))
    join(line, partial(order.append, "c"))
    line.leave()
    line.abandon(gone)
    assert order == ["b"]


def test_a_task_whose_loop_was_closed_does_not_add_a_place_when_it_is_collected() -> None:
    line = Line(1)
    line.enter(nobody)

    async def wait_in_line() -> None:
        event = asyncio.Event()
        waiter = join(line, partial(asyncio.get_running_loop().call_soon_threadsafe, event.set))
        try:
            await event.wait()
        except BaseException:
            line.abandon(waiter)
            raise

    async def wait_for_a_moment(waiting: Any) -> None:
        waiting.send(None)

    loop = asyncio.new_event_loop()
    waiting = wait_in_line()
    loop.run_until_complete(wait_for_a_moment(waiting))
    loop.close()
    line.leave()
    waiting.close()
    assert free_places(line) == 1


def test_a_wake_up_that_fails_in_another_way_is_seen() -> None:
    line = Line(1)
    line.enter(nobody)
    join(line, nobody)
    with pytest.raises(AssertionError):
        line.leave()


def test_the_child_of_a_fork_begins_with_an_empty_line() -> None:
    line = Line(2)
    line.enter(nobody)
    line.enter(nobody)
    join(line, nobody)
    line.after_fork()
    assert free_places(line) == 2


def test_threads_are_never_inside_in_greater_number_than_there_are_places() -> None:
    line, lock = Line(3), threading.Lock()
    inside, most, done = 0, 0, 0
    start = threading.Barrier(12)

    def work() -> None:
        nonlocal inside, most, done
        start.wait()
        for _ in range(40):
            turn = threading.Event()
            if line.enter(turn.set) is not None:
                assert turn.wait(30)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
                done += 1
            line.leave()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == 12 * 40
    assert most <= 3
    assert free_places(line) == 3


class LineMachine(RuleBasedStateMachine):
    """A line beside the simplest model of one: who is inside, who waits, and whose event loop has ended."""

    people = Bundle("people")

    @initialize(places=st.integers(1, 4))
    def open(self, places: int) -> None:
        self.places = places
        self.line = Line(places)
        self.waiters: list[Waiter | None] = []
        self.inside: set[int] = set()
        self.queue: list[int] = []
        self.ended: set[int] = set()
        self.woken: list[int] = []
        self.due: list[int] = []

    @rule(target=people)
    def enter(self) -> int:
        person = len(self.waiters)
        waiter = self.line.enter(partial(self.wake, person))
        self.waiters.append(waiter)
        if len(self.inside) < self.places:
            assert waiter is None
            self.inside.add(person)
        else:
            assert waiter is not None
            self.queue.append(person)
        return person

    def wake(self, person: int) -> None:
        if person in self.ended:
            raise RuntimeError("Event loop is closed")
        self.woken.append(person)

    @rule(person=people)
    def end_loop(self, person: int) -> None:
        if person in self.queue:
            self.ended.add(person)

    @rule(person=consumes(people), politely=st.booleans())
    def go(self, person: int, politely: bool) -> None:
        """Leave, or stop waiting, whichever state they are in; also when the line has passed them over."""
        waiter = self.waiters[person]
        if person in self.inside:
            self.inside.remove(person)
            self.admit_next()
            if waiter is None or politely:
                self.line.leave()
            else:
                self.line.abandon(waiter)
        else:
            if person in self.queue:
                self.queue.remove(person)
            assert waiter is not None
            self.line.abandon(waiter)

    def admit_next(self) -> None:
        while self.queue:
            person = self.queue.pop(0)
            if person not in self.ended:
                self.inside.add(person)
                self.due.append(person)
                return

    @invariant()
    def order_is_kept_and_nobody_is_lost(self) -> None:
        assert self.woken == self.due
        assert len(self.inside) <= self.places
        assert not self.queue or len(self.inside) == self.places

    def teardown(self) -> None:
        if hasattr(self, "line"):
            while self.inside:
                self.inside.pop()
                self.admit_next()
                self.line.leave()
            assert self.woken == self.due
            assert free_places(self.line) == self.places


LineMachine.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=30)
TestLine = LineMachine.TestCase
