"""Pages of entities, of one column and of several, on both APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Any, assert_type

import sqlalchemy as sa
from models import Post, User, db
from sqlalchemy import func, select

from dualchemy import KeysetPagination, Pagination
from dualchemy.pagination import AsyncSelectPagination, SelectPagination

sync = db.sync
ids_and_names = select(User.id, User.name).order_by(User.id)


def entities() -> None:
    page = sync.paginate(select(User).order_by(User.id))
    assert_type(page, SelectPagination[User])
    assert_type(page.items, list[User])
    assert_type([each.name for each in page], list[str])
    assert_type(page.next(), SelectPagination[User])
    assert_type(page.iter_pages(left_edge=1), Iterator[int | None])
    assert_type(
        (page.page, page.pages, page.first, page.last), tuple[int, int, int, int]
    )
    assert_type(page.next_num, int | None)
    legacy: Pagination[User] = page
    assert_type(legacy.prev().items, list[User])


def values() -> None:
    assert_type(sync.paginate(select(User.name)).items, list[str])
    assert_type(sync.paginate(select(func.now())).items, list[datetime])
    assert_type(sync.paginate_keyset(select(User.name)).items, list[str])
    assert_type(sync.pages(select(User.name)), Iterator[list[str]])


def rows() -> None:
    for row in sync.paginate(ids_and_names):
        assert_type(row.tuple()[0], int)
        assert_type(row.tuple()[1], str)
    for row in sync.paginate_keyset(ids_and_names):
        assert_type(row.tuple()[1], str)
    for some in sync.pages(select(User, Post.id)):
        assert_type(some[0].tuple()[0], User)


def what_types_cannot_tell() -> None:
    union = sa.union(select(User.id), select(Post.id))
    assert_type(sync.paginate(union).items, list[Any])


async def awaited() -> None:
    page = await db.paginate(select(User))
    assert_type(page, AsyncSelectPagination[User])
    assert_type((await page.next()).items, list[User])
    assert_type((await page.prev(error_out=True)).total, int | None)
    by_cursor = await db.paginate_keyset(select(User), cursor="", per_page=10)
    assert_type(by_cursor, KeysetPagination[User])
    assert_type((by_cursor.prev_cursor, by_cursor.last_cursor), tuple[str | None, str])
    for row in await db.paginate(ids_and_names, count=False):
        assert_type(row.tuple()[1], str)
    for row in await db.paginate_keyset(ids_and_names):
        assert_type(row.tuple()[0], int)
    async for some in db.pages(ids_and_names, per_page=50):
        assert_type(some[0].tuple()[1], str)
    assert_type(db.pages(select(User)), AsyncIterator[list[User]])


def shown(users: Sequence[User]) -> list[str]:
    return [user.name for user in users]


shown(sync.paginate(select(User)).items)
