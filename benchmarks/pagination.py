"""What does a page cost, by number and by cursor, at the beginning and at the end?

Each figure is a ratio to the *floor*: the statement one would write by hand, ``WHERE id > x
ORDER BY id LIMIT n``, in the same session, loading the same entities. All contenders take
turns in one run; shown are the median ratio and its quartiles. A turn is an app context of
its own, as a request has one.

    python benchmarks/pagination.py --url postgresql://localhost/scratch

makes a table ``benchmark_item`` there, fills it, and drops it. Several URLs may be given.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from dualchemy import Model, SQLAlchemy

PER_PAGE = 20
CHUNK = 10_000


class Base(Model):
    """The base of the only model."""


db = SQLAlchemy(model_class=Base)


class Item(Base):
    """A row that is neither small nor large."""

    __tablename__ = "benchmark_item"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(40))
    body: Mapped[str] = mapped_column(sa.String(200))
    score: Mapped[int]

    __table_args__ = (sa.Index("benchmark_place", "score", "id"),)


BY_ID = select(Item).order_by(Item.id)
BY_SCORE = select(Item).order_by(Item.score, Item.id)

Contender = Callable[[], Awaitable[Any]]


def fill(rows: int) -> None:
    """Make the table with so many rows; 100 share a score."""
    db.sync.drop_all()
    db.sync.create_all()
    for start in range(0, rows, CHUNK):
        with db.sync.sessionmaker.begin() as session:
            session.execute(
                sa.insert(Item),
                [
                    {
                        "id": n,
                        "name": f"item {n}",
                        "body": "x" * 150,
                        "score": n // 100,
                    }
                    for n in range(start, min(start + CHUNK, rows))
                ],
            )
    if db.sync.engine.dialect.name == "postgresql":
        with db.sync.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("VACUUM ANALYZE benchmark_item"))


def cursor_at(statement: Any, number: int, last: int, by_score: bool) -> str:
    """Return the cursor of a page by its number."""
    from dualchemy.pagination.cursors import Cursors, Place
    from dualchemy.pagination.seeking import Seeker

    if number == 1:
        return ""
    seeker = Seeker(db.sync.session(), statement)
    before = (number - 1) * PER_PAGE - 1
    values = (before // 100, before) if by_score else (before,)
    return Cursors(seeker.course.keys, seeker.course.name).dump(Place(values))


def races_at(number: int, last: int, aio: bool) -> tuple[dict[str, Contender], ...]:
    """Return what is compared: coroutine functions, of either API. Those that read the
    whole table have a race of their own, for they would leave the caches empty to others.
    """
    api: Any = db.aio if aio else db.sync
    before = (number - 1) * PER_PAGE - 1
    cursors = [
        cursor_at(BY_ID, number, last, by_score=False),
        cursor_at(BY_SCORE, number, last, by_score=True),
    ]

    async def result(value: Any) -> Any:
        return await value if aio else value

    async def floor() -> Any:
        statement = BY_ID.limit(PER_PAGE + 1)
        if number > 1:
            statement = statement.where(Item.id > before)
        return (await result(api.session.scalars(statement))).all()

    async def floor_by_two() -> Any:
        statement = BY_SCORE.limit(PER_PAGE + 1)
        if number > 1 and db.sync.engine.dialect.name in {"mysql", "mariadb"}:
            # They read the table from its start to compare rows.
            score = before // 100
            beyond = sa.or_(Item.score > score, Item.id > before)
            statement = statement.where(Item.score >= score, beyond)
        elif number > 1:
            place = sa.tuple_(before // 100, before)
            statement = statement.where(sa.tuple_(Item.score, Item.id) > place)
        return (await result(api.session.scalars(statement))).all()

    async def keyset() -> Any:
        page = await result(
            api.paginate_keyset(BY_ID, per_page=PER_PAGE, cursor=cursors[0])
        )
        return page.items, page.next_cursor

    async def keyset_by_two() -> Any:
        page = await result(
            api.paginate_keyset(BY_SCORE, per_page=PER_PAGE, cursor=cursors[1])
        )
        return page.items, page.next_cursor

    def offset(count: Any) -> Contender:
        async def page() -> Any:
            found = api.paginate(BY_ID, page=number, per_page=PER_PAGE, count=count)
            return (await result(found)).items

        return page

    return (
        {
            "floor": floor,
            "keyset": keyset,
            "floor, two keys": floor_by_two,
            "keyset, two keys": keyset_by_two,
        },
        {
            "floor": floor,
            "offset, no count": offset(False),
            "offset, count=1000": offset(1000),
            "offset, count": offset(True),
        },
    )


async def measure(
    app: Flask, race: dict[str, Contender], turns: int
) -> dict[str, list[float]]:
    """Return the seconds of each contender's turns, which alternate in a new order each
    time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in race}
    contenders = list(race.items())
    for turn in range(turns + 3):
        random.shuffle(contenders)
        for name, run in contenders:
            start = time.perf_counter()
            with app.app_context():
                await run()
                if db.aio.session.registry.has():
                    await db.aio.session.remove()
            if turn >= 3:  # the first ones fill caches
                seconds[name].append(time.perf_counter() - start)
    return seconds


def show(seconds: dict[str, list[float]], reference: float) -> None:
    for name, times in seconds.items():
        if name == "floor" and "keyset" not in seconds:
            continue  # shown before
        floor = seconds["floor, two keys" if "two keys" in name else "floor"]
        ratios = [each / base for each, base in zip(times, floor, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        depth = statistics.median(times) / reference
        print(
            f"  {name:20} {middle:8.2f}  ({low:.2f} to {high:.2f})"
            f"   to the floor of page 1: {depth:8.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", action="append", help="a database to use a table of")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument(
        "--async", action="store_true", dest="aio", help="the async API"
    )
    arguments = parser.parse_args()
    for url in arguments.url or ["sqlite:////tmp/benchmark_pagination.db"]:
        app = Flask("benchmark")
        app.config.update(SQLALCHEMY_DATABASE_URI=url, SECRET_KEY="benchmark")
        db.init_app(app)
        for rows in arguments.rows:
            with app.app_context():
                fill(rows)
            reference = None
            last = rows // PER_PAGE
            for number in (1, last // 2, last):
                with app.app_context():
                    races = races_at(number, last, arguments.aio)
                    name = db.sync.engine.dialect.name
                print(f"{name}, {rows:,} rows, page {number:,} of {last:,}")
                for race, turns in zip(races, (arguments.turns, 30), strict=True):
                    seconds = asyncio.run(measure(app, race, turns))
                    reference = reference or statistics.median(seconds["floor"])
                    show(seconds, reference)
        with app.app_context():
            db.sync.drop_all()


if __name__ == "__main__":
    main()
