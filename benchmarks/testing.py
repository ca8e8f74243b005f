"""How much faster is a test suite isolated than with tables made anew for each test?

``python benchmarks/testing.py postgresql://localhost/bench sqlite:///bench.db``: a suite
of tests, each of which sends a request that commits, on a schema of 20 tables. Both ways
take turns; the medians of the rounds are compared. The tables of the databases are
dropped.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from flask import Flask

from dualchemy.flask import SQLAlchemy

TABLES = 20
TESTS = 5
ROUNDS = 5


def make_app(url: str) -> tuple[Flask, SQLAlchemy]:
    db = SQLAlchemy()
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db.init_app(app)
    tables: list[Any] = [
        db.Table(
            f"bench_{number}",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", sa.String(50), index=True),
        )
        for number in range(TABLES)
    ]

    @app.get("/")
    def add() -> str:
        db.session.execute(tables[0].insert().values(name="x"))
        db.session.commit()
        return str(db.session.scalar(sa.select(sa.func.count()).select_from(tables[0])))

    return app, db


def test(app: Flask) -> None:
    assert app.test_client().get("/").text == "1"


def recreating(app: Flask, db: SQLAlchemy) -> None:
    for _ in range(TESTS):
        with app.app_context():
            db.create_all()
        test(app)
        with app.app_context():
            db.drop_all()


def isolated(app: Flask, db: SQLAlchemy) -> None:
    with app.app_context():
        db.create_all()
    for _ in range(TESTS):
        with db.sync.isolation(app):
            test(app)
    with app.app_context():
        db.drop_all()


def timed(run: Callable[[Flask, SQLAlchemy], None], *args: Any) -> float:
    start = perf_counter()
    run(*args)
    return perf_counter() - start


def main(urls: list[str]) -> None:
    for url in urls:
        app, db = make_app(url)
        times: dict[Any, list[float]] = {recreating: [], isolated: []}
        for _ in range(ROUNDS):
            for way, results in times.items():
                results.append(timed(way, app, db))
        anew, once = (statistics.median(each) for each in times.values())
        print(
            f"{sa.make_url(url).get_backend_name():12} {TESTS} tests, {TABLES} tables:"
            f" isolated {once:.3f} s, tables made anew {anew:.3f} s,"
            f" {anew / once:.1f} times as long"
        )
        with app.app_context():
            db.dispose()


if __name__ == "__main__":
    main(sys.argv[1:] or ["sqlite:///bench.db"])
