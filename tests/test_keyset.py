"""Pages by cursor: each row exactly once, in the database's own order, on both APIs and
every database.
"""

from __future__ import annotations

import enum
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import (
    Mapped,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)
from support.apps import Site, resolve
from support.databases import Backend
from werkzeug.exceptions import BadRequest, NotFound

from dualchemy import ConfigError
from dualchemy.pagination import KeysetPagination

BACKENDS = pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.* Decimal objects")


class Kind(enum.Enum):
    """Declared in another order than that of the names."""

    PEAR = "pear"
    APPLE = "apple"
    FIG = "fig"


SHORT_DAY = timezone(timedelta(hours=-9, minutes=-30))
VALUES: dict[str, list[Any]] = {
    "number": [-(2**31), -1, 0, 7, 8, 2**31 - 1],
    "large": [-(2**63), 2**53, 2**53 + 1, 2**63 - 1],
    "exact": [Decimal(text) for text in ("-1.5", "0", "0.1", "0.123457", "99999.99")],
    "double": [-1e300, -0.1, 0.0, 0.1, 0.1 + 0.2, 0.3, 1e-9, 1.5, 1e17],
    "single": [-0.1, 0.0, 0.1, 1 / 3, 1.5, 16777216.0, 16777218.0, 3e20],
    "text": [
        "",
        "a",
        "A",
        "b",
        "B",
        "ä",
        "Ä",
        "z ",
        "z",
        "💥",
        "'\"\\%_",
        "\u2028\t\n",
    ],
    "flag": [False, True],
    "day": [date(1, 1, 1), date(1999, 12, 31), date(2024, 2, 29), date(9999, 12, 31)],
    "moment": [
        datetime(2024, 3, 31, 1, 30, 0, 1, UTC),
        datetime(2024, 3, 31, 1, 30, 0, 2, UTC),
        datetime(2024, 3, 31, 1, 30, tzinfo=SHORT_DAY),
        datetime(1980, 1, 1, tzinfo=UTC),
    ],
    "local": [
        datetime.fromisoformat(text)
        for text in ("1000-01-01", "2024-01-01", "2024-01-01 00:00:00.000001")
    ],
    "clock": [time(), time(0, 0, 1), time(23, 59, 59)],
    "span": [timedelta(), timedelta(microseconds=1), timedelta(days=40, hours=5)],
    "kind": list(Kind),
    "word": list(Kind),
    "token": [uuid.UUID(int=n) for n in (0, 1, 2**127, 2**64, 2**128 - 1, 0xFF << 60)],
    "blob": [b"", b"\0", b"\0\xff", b"a", b"\xff" * 20],
}
MICROSECONDS = mysql.DATETIME(fsp=6)


@pytest.fixture
def shelf(site: Site) -> Any:
    """A site with things that have a column of every type, and parts of them."""

    class Thing(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        number = mapped_column(sa.Integer)
        large = mapped_column(sa.BigInteger)
        exact = mapped_column(sa.Numeric(14, 6))
        double = mapped_column(sa.Double)
        single = mapped_column(sa.Float(24))
        text = mapped_column(sa.String(40))
        flag = mapped_column(sa.Boolean)
        day = mapped_column(sa.Date)
        moment = mapped_column(
            sa.DateTime(timezone=True).with_variant(MICROSECONDS, "mysql", "mariadb")
        )
        local = mapped_column(
            sa.DateTime().with_variant(MICROSECONDS, "mysql", "mariadb")
        )
        clock = mapped_column(sa.Time)
        span = mapped_column(
            sa.Interval(second_precision=6).with_variant(
                sa.Interval(second_precision=6), "postgresql"
            )
        )
        kind = mapped_column(sa.Enum(Kind))
        word = mapped_column(sa.Enum(Kind, native_enum=False, length=10))
        token = mapped_column(sa.Uuid)
        blob = mapped_column(sa.LargeBinary)
        must: Mapped[int] = mapped_column(default=0)
        parts = relationship("Part", back_populates="thing")

    class Part(site.db.Model):
        thing_id: Mapped[int] = mapped_column(
            sa.ForeignKey(Thing.id, ondelete="CASCADE"), primary_key=True
        )
        number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        label = mapped_column(sa.String(10))
        thing = relationship(Thing, back_populates="parts")

    site.Thing, site.Part = Thing, Part  # type: ignore[attr-defined]
    return site


async def store(shelf: Any, *rows: Any) -> None:
    shelf.db.session.add_all(rows)
    await resolve(shelf.db.session.commit())


async def forwards(shelf: Any, statement: Any, per_page: int) -> list[Any]:
    """Return the items of all pages, from the first to the last."""
    items: list[Any] = []
    cursor = ""
    while True:
        page = await resolve(
            shelf.db.paginate_keyset(statement, per_page=per_page, cursor=cursor)
        )
        assert page.has_prev is (cursor != "")
        assert len(page.items) == per_page or not page.has_next
        items += page
        if not page.has_next:
            assert page.next_cursor is None
            return items
        cursor = page.next_cursor


async def backwards(shelf: Any, statement: Any, per_page: int) -> list[Any]:
    """Return the items of all pages in the same order, read from the last page on."""
    items: list[Any] = []
    first = await resolve(shelf.db.paginate_keyset(statement, per_page=1, cursor=""))
    cursor = first.last_cursor
    while True:
        page = await resolve(
            shelf.db.paginate_keyset(statement, per_page=per_page, cursor=cursor)
        )
        assert page.has_next is bool(items)
        items = [*page, *items]
        if not page.has_prev:
            assert page.prev_cursor is None
            return items
        cursor = page.prev_cursor


async def walk(shelf: Any, statement: Any) -> list[Any]:
    """Return a statement's items, the same however they are read."""
    everything = await forwards(shelf, statement, 100)
    assert await forwards(shelf, statement, 2) == everything
    assert await backwards(shelf, statement, 3) == everything
    if shelf.is_async:
        pages = [page async for page in shelf.db.pages(statement, per_page=1)]
    else:
        pages = list(shelf.db.pages(statement, per_page=1))
    assert [item for page in pages for item in page] == everything
    return everything


def in_order(column: Any, order: str) -> tuple[Any, list[Any]]:
    """Return an ORDER BY clause, and the same in the words of every database."""
    direction, _, nulls = order.partition(" ")
    clause = column.desc() if direction == "desc" else column.asc()
    if not nulls:
        return clause, [clause]
    is_null = sa.case((column.is_(None), 1), else_=0)
    if nulls == "nulls first":
        return clause.nulls_first(), [is_null.desc(), clause]
    return clause.nulls_last(), [is_null.asc(), clause]


ORDERS = [
    f"{direction}{nulls}"
    for direction in ("asc", "desc")
    for nulls in ("", " nulls first", " nulls last")
]


@BACKENDS
@pytest.mark.parametrize("name", VALUES)
async def test_every_type(shelf: Any, backend: Backend, name: str) -> None:
    Thing = shelf.Thing
    column = getattr(Thing, name)
    values = [*VALUES[name], None, *VALUES[name][:2], None]
    if name in {"double", "single"} and backend.name != "mariadb":
        values += [math.inf, -math.inf]
    if name in {"double", "single", "exact"} and "postgresql" in backend.name:
        values += [Decimal("NaN") if name == "exact" else math.nan] * 2
    async with shelf.context():
        await resolve(shelf.db.create_all())
        await store(shelf, *[Thing(**{name: value}) for value in values])
        for order in ORDERS:
            clause, words = in_order(column, order)
            last = Thing.id.desc() if order.startswith("desc") else Thing.id
            rows = await resolve(
                shelf.db.session.execute(select(Thing.id).order_by(*words, last))
            )
            expected = rows.scalars().all()
            assert len(expected) == len(values)
            found = await walk(shelf, select(Thing.id).order_by(clause))
            assert found == expected, order


@BACKENDS
async def test_values_that_a_type_rounds(shelf: Any) -> None:
    """A cursor holds what the database has, not what the type makes of it."""

    class Rounded(sa.TypeDecorator[Any]):
        impl = sa.Double
        cache_ok = True

        def process_result_value(self, value: Any, dialect: Any) -> Any:
            return None if value is None else round(value)

    class Reading(shelf.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        value = mapped_column(Rounded)
        exact = mapped_column(sa.Numeric(30, 15, decimal_return_scale=2))

    async with shelf.context():
        await resolve(shelf.db.create_all())
        await store(
            shelf,
            *[
                Reading(id=n, value=n / 7, exact=Decimal(n) / 1024)
                for n in range(1, 20)
            ],
        )
        for column in (Reading.value, Reading.exact):
            found = await walk(shelf, select(Reading.id).order_by(column))
            assert found == list(range(1, 20))


@BACKENDS
async def test_state_of_the_session_is_not_in_the_cursor(shelf: Any) -> None:
    Thing = shelf.Thing
    async with shelf.context():
        await resolve(shelf.db.create_all())
        await store(shelf, *[Thing(id=n, number=n) for n in range(1, 6)])
        statement = select(Thing).order_by(Thing.number)
        with shelf.db.session.no_autoflush:
            page = await resolve(
                shelf.db.paginate_keyset(statement, per_page=2, cursor="")
            )
            page.items[-1].number = 5  # and is not flushed
            page = await resolve(
                shelf.db.paginate_keyset(statement, per_page=2, cursor=page.next_cursor)
            )
            assert [thing.id for thing in page] == [3, 4]


@BACKENDS
class TestOrders:
    @pytest.fixture
    async def full(self, shelf: Any) -> Any:
        """Sixteen things, with up to three parts each."""
        async with shelf.context():
            await resolve(shelf.db.create_all())
            things = [
                shelf.Thing(
                    id=n,
                    number=n % 3,
                    text="aAbB"[n % 4],
                    flag=[True, False, None][n % 3],
                    must=n % 2,
                )
                for n in range(1, 17)
            ]
            for thing in things:
                thing.parts = [
                    shelf.Part(number=n, label=f"p{n}") for n in range(thing.id % 4)
                ]
            await store(shelf, *things)
        return shelf

    async def check(
        self, full: Any, statement: Any, *reference: Any, merge: bool = False
    ) -> None:
        """Pages are cut from the statement's rows, ordered by ``reference``.

        :param merge: Merge the rows that joined eager loads repeat.
        """
        async with full.context():
            ordered = statement.order_by(None).order_by(*reference)
            result = await resolve(full.db.session.execute(ordered))
            rows = (result.unique() if merge else result).all()
            assert rows
            expected = [row[0] if len(row) == 1 else row for row in rows]
            assert await walk(full, statement) == expected

    async def test_none_is_by_primary_key(self, full: Any) -> None:
        await self.check(full, select(full.Thing), full.Thing.id)
        await self.check(full, select(full.Thing.text), full.Thing.id)

    async def test_composite_primary_key(self, full: Any) -> None:
        Part = full.Part
        await self.check(full, select(Part), Part.thing_id, Part.number)
        await self.check(
            full,
            select(Part).order_by(Part.number.desc()),
            Part.number.desc(),
            Part.thing_id.desc(),
        )

    async def test_mixed_directions(self, full: Any) -> None:
        Thing = full.Thing
        order = (Thing.must.desc(), Thing.number, Thing.id.desc())
        await self.check(full, select(Thing).order_by(*order), *order)
        order = (Thing.flag.desc(), Thing.text, Thing.must, Thing.id.desc())
        await self.check(full, select(Thing).order_by(*order), *order)

    async def test_columns_labels_and_names(self, full: Any) -> None:
        Thing = full.Thing
        double = (Thing.number * 2).label("double")
        for order in (
            (double,),
            (double.desc(),),
            ("double",),
            (sa.desc("double"), "must"),
            (sa.desc("number"),),
        ):
            statement = select(Thing.must, double).order_by(*order)
            last = (
                Thing.id.desc()
                if len(order) == 1 and str(order[0]).endswith("DESC")
                else Thing.id
            )
            await self.check(full, statement, *order, last)

    async def test_expressions(self, full: Any) -> None:
        Thing = full.Thing
        expressions = [
            func.lower(Thing.text),
            func.coalesce(Thing.number, 1),
            sa.case((Thing.number == 1, 0), (Thing.number == 2, 5), else_=3),
            Thing.number + 1,
            Thing.flag.is_(None),
            select(func.count())
            .where(full.Part.thing_id == Thing.id)
            .scalar_subquery(),
        ]
        for each in expressions:
            await self.check(full, select(Thing).order_by(each), each, Thing.id)
            await self.check(
                full, select(Thing).order_by(each.desc()), each.desc(), Thing.id.desc()
            )

    async def test_collation(self, full: Any, backend: Backend) -> None:
        collation = {"sqlite": "NOCASE", "mariadb": "utf8mb4_bin"}.get(
            backend.name, "C"
        )
        column = full.Thing.text.collate(collation)
        statement = select(full.Thing).order_by(column, full.Thing.id)
        await self.check(full, statement, column, full.Thing.id)

    async def test_aliases(self, full: Any) -> None:
        thing, other = aliased(full.Thing), aliased(full.Thing)
        await self.check(full, select(thing).order_by(thing.text), thing.text, thing.id)
        statement = (
            select(thing.id, other)
            .join(other, other.id > thing.id + 10)
            .order_by(other.number, thing.must.desc())
        )
        order = (other.number, thing.must.desc(), thing.id.desc(), other.id.desc())
        await self.check(full, statement, *order)

    async def test_joins(self, full: Any) -> None:
        Thing, Part = full.Thing, full.Part
        to_one = select(Part).join(Part.thing).order_by(Thing.text)
        await self.check(full, to_one, Thing.text, Part.thing_id, Part.number)
        to_many = select(Thing).join(Thing.parts).order_by(Thing.text)
        # The part is not selected, so equal things are told apart by their parts.
        async with full.context():
            found = await walk(full, to_many)
            assert len(found) == 24
            number = {thing.id: thing.id % 4 for thing in found}
            assert all(found.count(t) == number[t.id] for t in found)
        both = select(Thing.text, Part).join(Part, Part.thing_id == Thing.id)
        await self.check(
            full,
            both.order_by(Part.label.desc()),
            Part.label.desc(),
            Part.thing_id.desc(),
            Part.number.desc(),
        )
        where = select(Thing, Part.number).where(Part.thing_id == Thing.id)
        await self.check(full, where, Part.thing_id, Part.number)

    async def test_outer_joins_fill_keys_with_null(self, full: Any) -> None:
        Thing, Part = full.Thing, full.Part
        statement = select(Thing.id, Part.number).outerjoin(Thing.parts)
        for order in ORDERS:
            clause, words = in_order(Part.number, order)
            await self.check(
                full,
                statement.order_by(Thing.must, clause, Thing.id),
                *(Thing.must, *words, Thing.id),
            )
        first = aliased(Part)
        to_one = (
            select(Thing, first)
            .outerjoin(first, sa.and_(first.thing_id == Thing.id, first.number == 0))
            .order_by(first.label, Thing.id)
        )
        await self.check(full, to_one, first.label, Thing.id)

    async def test_eager_loads(self, full: Any) -> None:
        Thing, Part = full.Thing, full.Part
        for load in (joinedload, selectinload):
            statement = select(Thing).options(load(Thing.parts)).order_by(Thing.text)
            await self.check(full, statement, Thing.text, Thing.id, merge=True)
            async with full.context():
                for thing in await forwards(full, statement, 4):
                    assert len(thing.parts) == thing.id % 4
        repeated = (
            select(Thing, Part.number)
            .join(Part, Part.thing_id == Thing.id)
            .options(joinedload(Thing.parts))
            .order_by(Part.number)
        )
        await self.check(full, repeated, Part.number, Thing.id, merge=True)

    async def test_rows_keep_their_names(self, full: Any) -> None:
        Thing = full.Thing
        statement = select(Thing.id, Thing, func.lower(Thing.text).label("low"))
        async with full.context():
            page = await resolve(full.db.paginate_keyset(statement, per_page=2))
            row = page.items[1]
            assert (row.id, row.Thing.id, row.low, len(row)) == (2, 2, "b", 3)
            assert row._mapping[Thing.id] == 2

    async def test_distinct(self, full: Any) -> None:
        Thing = full.Thing
        statement = select(Thing.must, Thing.number).distinct()
        await self.check(
            full, statement.order_by(Thing.number), Thing.number, Thing.must
        )
        entities = select(Thing).join(Thing.parts).distinct().order_by(Thing.must)
        await self.check(full, entities, Thing.must, Thing.id)
        low = func.lower(Thing.text)
        await self.check(full, select(low).distinct().order_by(low.desc()), low.desc())

    async def test_group_by(self, full: Any) -> None:
        Thing, Part = full.Thing, full.Part
        total = func.count(Part.number)
        statement = (
            select(Thing.must, Thing.number, total.label("total"))
            .join(Part, Part.thing_id == Thing.id)
            .group_by(Thing.must, Thing.number)
            .having(total > 1)
        )
        for order in ((total.desc(),), ("total",), (func.max(Thing.id),)):
            tail = (Thing.must, Thing.number)
            if isinstance(order[0], sa.UnaryExpression):
                tail = tuple(column.desc() for column in tail)
            await self.check(full, statement.order_by(*order), *order, *tail)

    async def test_subqueries(self, full: Any) -> None:
        Thing = full.Thing
        numbered = select(
            Thing, func.row_number().over(order_by=Thing.text.desc()).label("place")
        ).subquery()
        await self.check(
            full, select(numbered).order_by(numbered.c.place), numbered.c.place
        )
        inner = aliased(Thing, numbered)
        await self.check(
            full,
            select(inner).order_by(numbered.c.must, numbered.c.place.desc()),
            *(numbered.c.must, numbered.c.place.desc()),
        )
        both = sa.union(
            select(Thing.id), select(Thing.id + 10).where(Thing.id > 3)
        ).subquery()
        await self.check(full, select(both), both.c[0])

    async def test_core_tables(self, full: Any) -> None:
        table = full.Part.__table__
        statement = select(table).order_by(table.c.label)
        await self.check(
            full, statement, table.c.label, table.c.thing_id, table.c.number
        )

    async def test_inheritance(self, full: Any) -> None:
        class Gadget(full.Thing):
            id: Mapped[int] = mapped_column(
                sa.ForeignKey(full.Thing.id), primary_key=True
            )
            volts: Mapped[int]

        async with full.context():
            await resolve(full.db.create_all())
            await store(full, *[Gadget(id=n, volts=n % 3) for n in range(30, 40)])
        for entity in (Gadget, aliased(Gadget), aliased(Gadget, flat=True)):
            statement = select(entity).order_by(entity.volts)
            await self.check(full, statement, entity.volts, entity.id)


@BACKENDS
class TestPage:
    @pytest.fixture
    async def things(self, shelf: Any) -> Any:
        async with shelf.context():
            await resolve(shelf.db.create_all())
            await store(shelf, *[shelf.Thing(id=n, number=n) for n in range(1, 6)])
        return shelf

    async def page(self, site: Any, cursor: str | None = "", **options: Any) -> Any:
        statement = select(site.Thing.id).order_by(site.Thing.number)
        options = {"per_page": 2, "cursor": cursor, **options}
        return await resolve(site.db.paginate_keyset(statement, **options))

    async def test_forth_and_back(self, things: Any) -> None:
        async with things.context():
            first = await self.page(things)
            assert isinstance(first, KeysetPagination)
            assert (first.items, list(first), first.per_page) == ([1, 2], [1, 2], 2)
            assert (first.has_prev, first.has_next) == (False, True)
            second = await self.page(things, first.next_cursor)
            assert (second.items, second.has_prev, second.has_next) == (
                [3, 4],
                True,
                True,
            )
            third = await self.page(things, second.next_cursor)
            assert (third.items, third.has_prev, third.has_next) == ([5], True, False)
            again = await self.page(things, third.prev_cursor)
            assert (again.items, again.has_prev, again.has_next) == (
                [3, 4],
                True,
                True,
            )
            start = await self.page(things, again.prev_cursor)
            assert (start.items, start.has_prev, start.has_next) == (
                [1, 2],
                False,
                True,
            )
            assert (await self.page(things, start.next_cursor)).items == [3, 4]
            last = await self.page(things, first.last_cursor)
            assert (last.items, last.has_prev, last.has_next) == ([4, 5], True, False)
            assert repr(last) == "<KeysetPagination 2 items>"

    async def test_no_rows(self, shelf: Any) -> None:
        async with shelf.context():
            await resolve(shelf.db.create_all())
            for cursor in ("", (await self.page(shelf)).last_cursor):
                page = await self.page(shelf, cursor)
                assert (page.items, page.has_prev, page.has_next) == ([], False, False)
                assert (page.prev_cursor, page.next_cursor) == (None, None)

    async def test_rows_that_went_leave_a_way_back(self, things: Any) -> None:
        """A page may be empty when it is asked for; its links lead to rows again."""
        Thing = things.Thing
        async with things.context():
            first = await self.page(things)
            second = await self.page(things, first.next_cursor)
            for gone, cursor, way in (
                (Thing.id > 4, second.next_cursor, "prev_cursor"),
                (Thing.id < 3, second.prev_cursor, "next_cursor"),
            ):
                await resolve(things.db.session.execute(sa.delete(Thing).where(gone)))
                await resolve(things.db.session.commit())
                empty = await self.page(things, cursor)
                assert empty.items == []
                back = await self.page(things, getattr(empty, way))
                assert back.items == [3, 4]

    async def test_arguments_come_from_the_request(self, things: Any) -> None:
        async with things.context():
            cursor = (await self.page(things)).next_cursor
        async with things.request(f"/?per_page=1&cursor={cursor}"):
            assert (await self.page(things, None, per_page=None)).items == [3]
            assert (await self.page(things, "")).items == [1, 2]
        async with things.request("/?per_page=500&cursor="):
            page = await self.page(things, None, per_page=None)
            assert (page.per_page, len(page.items)) == (100, 5)
        async with things.request("/?per_page=0"):
            with pytest.raises(NotFound):
                await self.page(things, None, per_page=None)

    async def test_one_statement_is_the_rule(
        self, things: Any, statements: list[str]
    ) -> None:
        Thing = things.Thing
        async with things.context():
            for order in ([Thing.must], [Thing.must.desc(), Thing.id.desc()]):
                statement = select(Thing).order_by(*order)
                page = await resolve(
                    things.db.paginate_keyset(statement, per_page=2, cursor="")
                )
                statements.clear()
                cursor = page.next_cursor
                page = await resolve(
                    things.db.paginate_keyset(statement, per_page=2, cursor=cursor)
                )
                assert len(page.items) == 2
                assert len(statements) == 1


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The statements that were sent to any database, transactions apart."""
    seen: list[str] = []

    def note(c: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.mark.backends("sqlite")
class TestCursors:
    @pytest.fixture
    async def things(self, shelf: Any) -> Any:
        async with shelf.context():
            await resolve(shelf.db.create_all())
            await store(shelf, *[shelf.Thing(id=n, number=n) for n in range(1, 6)])
        return shelf

    async def page(
        self, site: Any, cursor: Any, statement: Any = None, **options: Any
    ) -> Any:
        if statement is None:
            statement = select(site.Thing).order_by(site.Thing.number)
        options = {"per_page": 2, "cursor": cursor, **options}
        return await resolve(site.db.paginate_keyset(statement, **options))

    async def test_are_url_safe(self, things: Any) -> None:
        Thing = things.Thing
        async with things.context():
            await store(things, *[Thing(text=each) for each in VALUES["text"]])
            statement = select(Thing).order_by(Thing.text, Thing.blob)
            cursor = ""
            while True:
                page = await self.page(things, cursor, statement, per_page=1)
                if not page.has_next:
                    break
                cursor = page.next_cursor
                assert quote(cursor, safe="") == cursor

    async def test_damaged(self, things: Any) -> None:
        async with things.context():
            cursor = (await self.page(things, "")).next_cursor
            damaged = [
                *(cursor[:n] for n in range(1, len(cursor), 7)),
                *(cursor[:n] + "x" + cursor[n + 1 :] for n in (0, 9, -1 % len(cursor))),
                *("x", ".", "..", "\0", "é", "\ud800", "9" * 5000, " ", cursor + "."),
                *(cursor.swapcase(), cursor * 2, "." + cursor, cursor + "\n"),
            ]
            for each in damaged:
                if each == cursor:
                    continue
                with pytest.raises(BadRequest) as caught:
                    await self.page(things, each)
                assert caught.value.description == (
                    "The cursor is damaged, or was not made by this site. Begin again at"
                    " the first page."
                )
                page = await self.page(things, each, error_out=False)
                assert [thing.id for thing in page] == [1, 2]

    async def test_of_another_order(self, things: Any) -> None:
        Thing = things.Thing
        other = aliased(Thing, name="other")
        low = func.lower(Thing.text)
        orders = [
            select(Thing).order_by(Thing.number),
            select(Thing).order_by(Thing.number.desc()),
            select(Thing).order_by(Thing.number.nulls_last()),
            select(Thing).order_by(Thing.number, Thing.id.desc()),
            select(Thing).order_by(Thing.must),
            select(Thing).order_by(low),
            select(Thing).order_by(func.upper(Thing.text)),
            select(Thing).order_by(Thing.number + 1),
            select(Thing).order_by(Thing.number + 2),
            select(other).order_by(other.number),
            select(things.Part).order_by(things.Part.number),
        ]
        async with things.context():
            await store(things, *[things.Part(thing_id=1, number=n) for n in range(3)])
            cursors = [
                (await self.page(things, "", each)).next_cursor for each in orders
            ]
            for number, statement in enumerate(orders):
                for origin, cursor in enumerate(cursors):
                    if number == origin:
                        assert (await self.page(things, cursor, statement)).items
                        continue
                    with pytest.raises(BadRequest) as caught:
                        await self.page(things, cursor, statement)
                    assert str(caught.value.description).startswith(
                        "The cursor was made for another order of rows, or is out of"
                    )

    async def test_of_the_same_order_with_another_filter(self, things: Any) -> None:
        Thing = things.Thing
        async with things.context():
            cursor = (await self.page(things, "")).next_cursor
            few = select(Thing).where(Thing.id != 3).order_by(Thing.number)
            page = await self.page(things, cursor, few)
        assert [thing.id for thing in page] == [4, 5]

    async def test_of_another_app(self, things: Any) -> None:
        async with things.context():
            cursor = (await self.page(things, "")).next_cursor
            assert (await self.page(things, cursor)).items
            things.app.config["SECRET_KEY"] = "another"
            with pytest.raises(BadRequest):
                await self.page(things, cursor)
            things.app.config["SECRET_KEY_FALLBACKS"] = ["test"]
            assert (await self.page(things, cursor)).items

    async def test_are_not_signed_like_anything_else(self, things: Any) -> None:
        """What the app signs elsewhere with the same key is no cursor."""
        import itsdangerous

        async with things.context():
            cursor = (await self.page(things, "")).next_cursor
            payload = cursor.rpartition(".")[0]
            for salt in (b"itsdangerous.Signer", b"cookie-session"):
                forged = itsdangerous.Signer("test", salt=salt).sign(payload).decode()
                with pytest.raises(BadRequest):
                    await self.page(things, forged)

    async def test_error_is_a_response(self, things: Any) -> None:
        @things.view("/things")
        async def view() -> Any:
            return "unused"

        def plain() -> Any:
            statement = select(things.Thing).order_by(things.Thing.number)
            page = things.db.paginate_keyset(statement)
            return {"ids": [thing.id for thing in page]}

        async def coroutine() -> Any:
            statement = select(things.Thing).order_by(things.Thing.number)
            page = await things.db.paginate_keyset(statement)
            return {"ids": [thing.id for thing in page]}

        function = coroutine if things.is_async else plain
        things.app.view_functions["view"] = function
        assert (await things.get("/things"))[0] == 200
        status, body = await things.get("/things?cursor=nonsense")
        assert status == 400
        assert "Begin again at the first page." in body

    async def test_need_a_secret_key(self, things: Any) -> None:
        things.app.config["SECRET_KEY"] = None
        async with things.context():
            with pytest.raises(ConfigError) as caught:
                await self.page(things, "")
            assert str(caught.value).startswith(
                "SECRET_KEY: paginate_keyset signs its cursors with it, and the app has"
                " none. Set app.config["
            )
            if things.is_async:  # nothing is signed here
                pages = [page async for page in things.db.pages(select(things.Thing))]
            else:
                pages = list(things.db.pages(select(things.Thing)))
            assert len(pages[0]) == 5

    async def test_argument_of_a_wrong_type(self, things: Any) -> None:
        async with things.context():
            with pytest.raises(TypeError, match=r"^cursor: expected a str, got 7\.$"):
                await self.page(things, 7)
            with pytest.raises(TypeError, match=r"'cusor'\. Did you mean 'cursor'"):
                await self.page(things, "", cusor="")
            with pytest.raises(ValueError, match="max_per_page"):
                await self.page(things, "", max_per_page=0)

    @pytest.mark.backends("postgresql")
    async def test_value_that_no_cursor_holds(self, things: Any) -> None:
        address = sa.literal_column("'10.0.0.1'::inet + thing.id")
        statement = select(things.Thing.id).order_by(address)
        async with things.context():
            page = await self.page(things, "", statement)
            with pytest.raises(TypeError) as caught:
                _ = page.next_cursor
        assert str(caught.value).startswith(
            "paginate_keyset: a cursor cannot hold the IPv4Address of"
        )


@pytest.mark.backends("sqlite")
class TestStatements:
    """What cannot be read from a place on says so."""

    async def refused(self, shelf: Any, statement: Any, message: str) -> None:
        async with shelf.context():
            with pytest.raises((ArgumentError, TypeError), match=message):
                await resolve(shelf.db.paginate_keyset(statement))

    async def test_refused(self, shelf: Any) -> None:
        Thing, Part = shelf.Thing, shelf.Part
        for statement, message in (
            (select(Thing).limit(5), "has a LIMIT, OFFSET or FETCH"),
            (select(Thing).offset(5), "has a LIMIT, OFFSET or FETCH"),
            (select(Thing).fetch(5), "has a LIMIT, OFFSET or FETCH"),
            (select(Thing).order_by(sa.text("id")), "cannot be compared by 'id'"),
            (select(Thing).order_by("nothing"), r"order_by\('nothing'\) names no"),
            (
                select(Thing.id, func.row_number().over(order_by=Thing.id)),
                "a window function sees",
            ),
            (
                select(Thing.number).distinct().order_by(Thing.must),
                "DISTINCT and ordered by 'thing.must'",
            ),
            (
                select(Thing).join(Part).distinct().order_by(func.lower(Part.label)),
                "DISTINCT and ordered by 'lower",
            ),
            (sa.union(select(Thing.id), select(Part.number)), r"expected a select\("),
            (sa.text("SELECT 1"), r"expected a select\("),
        ):
            await self.refused(shelf, statement, message)

    async def test_distinct_on_is_refused(self, shelf: Any) -> None:
        from sqlalchemy.dialects import postgresql

        number = shelf.Thing.number
        if hasattr(postgresql, "distinct_on"):
            statement = select(shelf.Thing).ext(postgresql.distinct_on(number))
        else:
            statement = select(shelf.Thing).distinct(number)
        await self.refused(shelf, statement, "DISTINCT ON takes other rows")

    async def test_pages_check_their_arguments(self, shelf: Any) -> None:
        async with shelf.context():
            for per_page, error in ((0, ValueError), ("5", TypeError)):
                with pytest.raises(error, match=r"^per_page: expected a"):
                    pages = shelf.db.pages(select(shelf.Thing), per_page=per_page)
                    _ = [p async for p in pages] if shelf.is_async else list(pages)
            with pytest.raises(TypeError, match=r"^pages: expected a select"):
                shelf.db.pages(sa.text("SELECT 1"))


COLUMNS = ["number", "text", "flag", "kind", "single", "must", "moment", "exact"]
order = st.tuples(st.sampled_from(COLUMNS), st.sampled_from(ORDERS))


@BACKENDS
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_rows_that_stay_are_seen_exactly_once(shelf: Any, data: Any) -> None:
    """Whatever the order and the shape of the statement, in both directions, while
    other rows come and go between the pages.
    """
    Thing = shelf.Thing
    orders = data.draw(st.lists(order, max_size=3, unique_by=lambda each: each[0]))
    shape = data.draw(st.sampled_from(["entity", "columns", "alias", "join"]))
    per_page = data.draw(st.integers(1, 4))
    reverse = data.draw(st.booleans())
    ids = iter(range(1, 1000))

    def draw_rows(size: int) -> list[Any]:
        return [
            Thing(
                id=next(ids),
                **{
                    name: data.draw(
                        st.sampled_from(
                            [0, 1] if name == "must" else [None, *VALUES[name][:3]]
                        )
                    )
                    for name in COLUMNS
                },
            )
            for _ in range(size)
        ]

    entity = aliased(Thing) if shape == "alias" else Thing
    clauses, words = [], []
    for name, how in orders:
        clause, word = in_order(getattr(entity, name), how)
        clauses.append(clause)
        words += word
    descending = bool(orders) and orders[-1][1].startswith("desc")
    words.append(entity.id.desc() if descending else entity.id)
    if shape == "columns":
        statement = select(Thing.id, Thing.text)
    elif shape == "join":
        neighbour = aliased(Thing)
        statement = select(Thing.id, neighbour.number).outerjoin(
            neighbour, neighbour.id == Thing.id + 1
        )
    else:
        statement = select(entity)

    async def change() -> None:
        """Insert some rows, and delete one that need not stay."""
        new = draw_rows(data.draw(st.integers(0, 2)))
        shelf.db.session.add_all(new)
        await resolve(shelf.db.session.flush())
        brief.update(thing.id for thing in new)
        if brief and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(brief)))
            await resolve(
                shelf.db.session.execute(sa.delete(Thing).where(Thing.id == gone))
            )
        await resolve(shelf.db.session.commit())

    async with shelf.context():
        await resolve(shelf.db.create_all())
        await resolve(shelf.db.session.execute(sa.delete(Thing)))
        first = draw_rows(data.draw(st.integers(0, 12)))
        await store(shelf, *first)
        everything = {thing.id for thing in first}
        brief = set(sorted(everything)[::3])
        stay = everything - brief

        seen: list[int] = []
        ordered = statement.order_by(*clauses)
        page = await resolve(
            shelf.db.paginate_keyset(ordered, per_page=per_page, cursor="")
        )
        if reverse:
            cursor = page.last_cursor
            page = await resolve(
                shelf.db.paginate_keyset(ordered, per_page=per_page, cursor=cursor)
            )
        while True:
            found = [getattr(item, "id", None) or item[0] for item in page]
            seen = [*found, *seen] if reverse else [*seen, *found]
            cursor = page.prev_cursor if reverse else page.next_cursor
            if cursor is None:
                break
            await change()
            page = await resolve(
                shelf.db.paginate_keyset(ordered, per_page=per_page, cursor=cursor)
            )
        assert len(seen) == len(set(seen))
        assert stay <= set(seen)
        reference = select(entity.id).where(entity.id.in_(stay)).order_by(*words)
        rows = await resolve(shelf.db.session.execute(reference))
        assert [id for id in seen if id in stay] == rows.scalars().all()


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
@pytest.mark.parametrize(
    "names",
    [
        ["+must"],
        ["-must", "-id"],
        ["+must", "-id"],
        ["+number nulls first", "+must"],
        ["-number nulls last", "-must"],
    ],
    ids=str,
)
async def test_each_statement_begins_at_its_place_in_an_index(
    backend: Backend, make_site: Any, names: list[str]
) -> None:
    """No statement of a page deep in many ties passes over the rows before it."""
    await check_cost(backend, make_site, names)


@pytest.mark.backends("postgresql")
async def test_index_with_nulls_placed(backend: Backend, make_site: Any) -> None:
    """Other databases sort here, for none of their indexes has such an order."""
    await check_cost(backend, make_site, ["-must", "+number nulls last", "+id"])


async def check_cost(backend: Backend, make_site: Any, names: list[str]) -> None:
    """Turn all pages in an order, on an index of it, and see what each reads.

    :param names: Columns after their directions, "+" or "-".
    """
    site = make_site("flask", SQLALCHEMY_DATABASE_URI=backend.url)

    class Thing(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int | None]
        must: Mapped[int]

    order, index = [], []
    for name in names:
        column_name, _, nulls = name[1:].partition(" ")
        column = getattr(Thing, column_name)
        direction = "asc" if name[0] == "+" else "desc"
        clause, _ = in_order(column, f"{direction} {nulls}".strip())
        order.append(clause)
        plain, _ = in_order(column, direction)
        index.append(clause if backend.name == "postgresql" else plain)
    last = Thing.id.desc() if names[-1][0] == "-" else Thing.id.asc()
    if not names[-1].endswith("id"):
        index.append(last)
    sa.Index("place", *index)
    sent: list[tuple[str, Any]] = []
    with site.app.app_context():
        db = site.db
        db.create_all()
        db.session.execute(
            sa.insert(Thing),
            [
                {"number": None if n % 5 == 0 else n % 3, "must": n % 2}
                for n in range(3000)
            ],
        )
        db.session.commit()
        if backend.name != "sqlite":
            table = "TABLE " if backend.name == "mariadb" else ""
            with db.engine.connect() as c:
                c.execution_options(isolation_level="AUTOCOMMIT")
                c.exec_driver_sql(f"ANALYZE {table}thing")

        def note(c: Any, cursor: Any, text: str, parameters: Any, *_: Any) -> None:
            sent.append((text, parameters))

        cursor, read = "", 0
        statement = select(Thing).order_by(*order)
        sa.event.listen(db.engine, "before_cursor_execute", note)
        while cursor is not None:
            page = db.paginate_keyset(
                statement, per_page=200, max_per_page=None, cursor=cursor
            )
            read += len(page.items)
            cursor = page.next_cursor
        sa.event.remove(db.engine, "before_cursor_execute", note)
        assert read == 3000
        assert len(sent) >= 15
        with db.engine.connect() as connection:
            for text, parameters in sent[1:]:
                over = passed_over(connection, backend, text, parameters)
                assert over < 450, text  # the planner may take every second row


def passed_over(connection: Any, backend: Backend, text: str, parameters: Any) -> int:
    """Return how many rows a statement reads beside those that it returns."""
    if backend.name == "sqlite":
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)
        (detail,) = [row.detail for row in plan]
        return 0 if detail.startswith("SEARCH") and "INDEX" in detail else 3000
    if backend.name == "mariadb":
        connection.exec_driver_sql("FLUSH STATUS")
        found = len(connection.exec_driver_sql(text, parameters).all())
        status = connection.exec_driver_sql("SHOW STATUS LIKE 'Handler_read_%%'", ())
        return sum(int(number) for _, number in status) - found
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
    connection.exec_driver_sql("SET LOCAL enable_sort = off")
    explained = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", parameters
    ).scalar()
    plan = explained[0]["Plan"]
    rows = 0
    while True:
        rows = max(rows, plan.get("Rows Removed by Filter", 0))
        if "Plans" not in plan:
            assert "Index" in plan["Node Type"]
            return int(rows)
        (plan,) = plan["Plans"]
        assert plan["Node Type"] != "Sort"
