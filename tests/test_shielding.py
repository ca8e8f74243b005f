"""What comes to its end though the task that awaits it is cancelled."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from dualchemy.shielding import (
    PutOff,
    finish,
    finish_commit,
    finish_commit_in_place,
)

To = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]


@pytest.fixture(params=[finish, finish_commit, finish_commit_in_place])
def to_the_end(request: pytest.FixtureRequest) -> To:
    way: To = request.param
    return way


class Work:
    """Something that takes two awaits, of which a test decides how they end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.first, self.second = loop.create_future(), loop.create_future()
        self.heard: list[object] = []

    async def run(self) -> str:
        for future in (self.first, self.second):
            try:
                self.heard.append(await future)
            except BaseException as error:
                self.heard.append(type(error))
                raise
            await asyncio.sleep(0)
        return "done"


async def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(coroutine)
    await turn()
    return task


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_result(to_the_end: To) -> None:
    work = Work()
    task = await start(to_the_end(work.run()))
    work.first.set_result(1)
    work.second.set_result(2)
    assert await task == "done"
    assert work.heard == [1, 2]


async def test_without_a_wait(to_the_end: To) -> None:
    async def at_once() -> int:
        return 7

    assert await to_the_end(at_once()) == 7


async def test_error_is_heard_where_it_was_awaited(to_the_end: To) -> None:
    work = Work()
    task = await start(to_the_end(work.run()))
    work.first.set_exception(LookupError("no such row"))
    with pytest.raises(LookupError, match="no such row"):
        await task
    assert work.heard == [LookupError]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_meanwhile(to_the_end: To, times: int) -> None:
    work = Work()
    task = await start(to_the_end(work.run()))
    task.cancel("first")
    await turn()
    for _ in range(times - 1):
        task.cancel("later")
        await turn()
    work.first.set_result(1)
    await turn()
    assert not task.done()
    work.second.set_result(2)
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("first",)
    assert work.heard == [1, 2]


async def test_cancelled_when_the_end_is_there(to_the_end: To) -> None:
    work = Work()
    task = await start(to_the_end(work.run()))
    work.first.set_result(1)
    await turn()
    work.second.set_result(2)
    task.cancel("late")
    with pytest.raises(asyncio.CancelledError):
        await task
    await turn()
    assert work.heard == [1, 2]


async def test_cancelled_and_failed(to_the_end: To) -> None:
    work = Work()
    task = await start(to_the_end(work.run()))
    task.cancel("gone")
    await turn()
    work.first.set_exception(LookupError("no such row"))
    with pytest.raises(asyncio.CancelledError, match="gone") as caught:
        await task
    assert isinstance(caught.value.__cause__, LookupError)
    assert work.heard == [LookupError]


async def test_what_is_awaited_was_cancelled_itself(to_the_end: To) -> None:
    work = Work()
    task = await start(to_the_end(work.run()))
    work.first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 0
    assert work.heard == [asyncio.CancelledError]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_grace(
    to_the_end: To, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not answer is cancelled too."""
    monkeypatch.setattr("dualchemy.shielding.GRACE", 0.05)
    work = Work()

    async def end_of_a_cancelled_task() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await to_the_end(work.run())

    if when == "before":
        task = await start(end_of_a_cancelled_task())
    else:
        task = await start(to_the_end(work.run()))
    task.cancel("gone")
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert work.heard == [asyncio.CancelledError]


async def test_cancelled_while_it_waits_for_nothing(to_the_end: To) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        for _ in range(20):
            await asyncio.sleep(0)
            turns += 1

    task = await start(to_the_end(take_turns()))
    assert 0 < turns < 20
    task.cancel("gone")
    with pytest.raises(asyncio.CancelledError, match="gone"):
        await task
    assert turns == 20


async def test_own_cancellation_that_is_dealt_with(to_the_end: To) -> None:
    future = asyncio.get_running_loop().create_future()

    async def deal_with_it() -> str:
        try:
            await future
        except asyncio.CancelledError:
            return "dealt with"
        raise AssertionError

    task = await start(to_the_end(deal_with_it()))
    future.cancel()
    assert await task == "dealt with"


@pytest.mark.parametrize("way", [finish, finish_commit])
async def test_timeout_of_its_own(way: To) -> None:
    async def look_three_times() -> int:
        expired = 0
        for _ in range(3):
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                expired += 1
        return expired

    task = await start(way(look_three_times()))
    assert await task == 3
    assert task.cancelling() == 0


async def test_nothing_waits_for_a_grace_that_was_not_needed(to_the_end: To) -> None:
    class Thing:
        pass

    async def cancelled_meanwhile(thing: Thing) -> None:
        await to_the_end(result(thing))

    async def result(thing: Thing) -> Thing:
        await work.run()
        return thing

    work = Work()
    thing = Thing()
    reference = weakref.ref(thing)
    task = await start(cancelled_meanwhile(thing))
    task.cancel()
    await turn()
    work.first.set_result(1)
    work.second.set_result(2)
    await asyncio.wait([task])
    del thing, task
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("way", [finish_commit, finish_commit_in_place])
async def test_put_off(way: To) -> None:
    work = Work()
    reached = []

    async def commit() -> None:
        with PutOff():
            reached.append(await way(work.run()))
            await asyncio.sleep(0)
            reached.append("told")
        reached.append("after")

    task = await start(commit())
    task.cancel("gone")
    await turn()
    work.first.set_result(1)
    work.second.set_result(2)
    with pytest.raises(asyncio.CancelledError, match="gone"):
        await task
    assert reached == ["done", "told"]


async def test_nothing_is_left_to_the_garbage_collector(to_the_end: To) -> None:
    class Thing:
        pass

    async def hold(thing: Thing) -> None:
        await asyncio.sleep(0)

    thing = Thing()
    reference = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        coroutine = hold(thing)
        del thing
        await to_the_end(coroutine)
        del coroutine
        await turn()
        assert reference() is None
    finally:
        gc.enable()
