"""Several databases behind one session: each model and table goes to its own."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy import orm as sa_orm
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapped, aliased, mapped_column, relationship
from sqlalchemy.orm.exc import UnmappedClassError
from support.apps import Site, fresh_db, resolve
from support.databases import Backend

from dualchemy import UnknownBindKeyError


class Shop:
    """An app with three databases, and a model or table in each."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.db = db = site.db

        class User(db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)

        class Report(db.Model):
            __bind_key__ = "reports"
            id: Mapped[int] = mapped_column(primary_key=True)
            year: Mapped[int] = mapped_column(default=2000)

        class Yearly(Report):
            id: Mapped[int] = mapped_column(
                sa.ForeignKey("report.id"), primary_key=True
            )

        self.User, self.Report, self.Yearly = User, Report, Yearly
        self.log = db.Table(
            "log", sa.Column("line", sa.Integer, primary_key=True), bind_key="logs"
        )

    async def tables(self, key: str | None) -> set[str]:
        """The tables in the database of a bind."""
        engine = self.db.sync.engines[key]
        return set(sa.inspect(engine).get_table_names())

    async def scalar(self, statement: Any) -> Any:
        result = await resolve(self.db.session.execute(statement))
        return result.scalar()

    async def run(self, statement: Any) -> None:
        await resolve(self.db.session.execute(statement))


@pytest.fixture
def shop(framework: str, backend: Backend, make_database: Any, make_site: Any) -> Shop:
    binds = {key: make_database(backend.name, key) for key in ("reports", "logs")}
    return Shop(
        make_site(
            framework, SQLALCHEMY_DATABASE_URI=backend.url, SQLALCHEMY_BINDS=binds
        )
    )


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
class TestSchema:
    async def test_create_and_drop_all(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            assert await shop.tables(None) == {"user"}
            assert await shop.tables("reports") == {"report", "yearly"}
            assert await shop.tables("logs") == {"log"}
            await resolve(shop.db.drop_all())
            for key in (None, "reports", "logs"):
                assert await shop.tables(key) == set()

    @pytest.mark.parametrize(
        ("keys", "created"),
        [
            (None, [None]),
            ("reports", ["reports"]),
            (["logs"], ["logs"]),
            (["logs", None], [None, "logs"]),
            ([], []),
        ],
    )
    async def test_for_some_binds(
        self, shop: Shop, keys: Any, created: list[str | None]
    ) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all(keys))
            found = [k for k in (None, "reports", "logs") if await shop.tables(k)]
        assert found == created

    async def test_reflect(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            shop.db.metadatas["logs"].clear()
            await resolve(shop.db.reflect("logs"))
        assert list(shop.db.metadatas["logs"].tables) == ["log"]


@pytest.mark.backends("sqlite")
class TestUnknownKey:
    async def test_in_schema_calls(self, shop: Shop) -> None:
        async with shop.site.context():
            for call in (shop.db.create_all, shop.db.drop_all, shop.db.reflect):
                for keys in ("report", ["logs", "report"]):
                    with pytest.raises(UnknownBindKeyError, match="'report' is not in"):
                        await resolve(call(keys))
            assert await shop.tables("logs") == set()

    async def test_of_a_model(self, shop: Shop) -> None:
        class Lost(shop.db.Model):
            __bind_key__ = "lost"
            id: Mapped[int] = mapped_column(primary_key=True)

        async with shop.site.context():
            for use in (
                lambda: shop.db.session.execute(select(Lost)),
                lambda: shop.db.session.get(Lost, 1),
                lambda: shop.db.create_all(),
            ):
                with pytest.raises(UnknownBindKeyError) as caught:
                    await resolve(use())
                assert "Bind key 'lost' is not in 'SQLALCHEMY_BINDS'" in str(
                    caught.value
                )
                assert isinstance(caught.value, sa.exc.UnboundExecutionError)

    async def test_of_a_table(self, shop: Shop) -> None:
        lost = shop.db.Table("lost", sa.Column("id", sa.Integer), bind_key="lost")

        async with shop.site.context():
            for statement in (select(lost), lost.insert(), select(lost.c.id)):
                with pytest.raises(UnknownBindKeyError, match="'lost'"):
                    await shop.run(statement)

    async def test_without_a_default_bind(self, framework: str, make_site: Any) -> None:
        site = make_site(framework, SQLALCHEMY_BINDS={"reports": "sqlite://"})
        shop = Shop(site)
        async with site.context():
            with pytest.raises(UnknownBindKeyError, match="There is no default bind"):
                await resolve(site.db.session.get(shop.User, 1))

    async def test_all_named_binds_need_no_default(
        self, framework: str, tmp_path: Any, make_site: Any
    ) -> None:
        db = fresh_db()
        url = f"sqlite:///{tmp_path}/reports.db"
        site = make_site(framework, db, SQLALCHEMY_BINDS={"reports": url})

        class Report(db.Model):
            __bind_key__ = "reports"
            id: Mapped[int] = mapped_column(primary_key=True)

        async with site.context():
            await resolve(db.create_all())
            assert await resolve(db.session.get(Report, 1)) is None


@pytest.mark.backends("sqlite", "postgresql")
class TestRouting:
    """Every statement runs; on the wrong bind its table would not exist."""

    async def test_unit_of_work(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            report, user, yearly = shop.Report(id=1), shop.User(id=1), shop.Yearly(id=2)
            shop.db.session.add_all([report, user, yearly])
            await resolve(shop.db.session.commit())
            report.year = 2001
            await resolve(shop.db.session.commit())
            await resolve(shop.db.session.refresh(report))
            assert report.year == 2001
            await resolve(shop.db.session.delete(yearly))
            await resolve(shop.db.session.commit())
        async with shop.site.context():
            assert await resolve(shop.db.session.get(shop.Report, 1)) is not None
            assert await resolve(shop.db.session.get(shop.Yearly, 2)) is None

    async def test_statements_of_models(self, shop: Shop) -> None:
        Report = shop.Report
        other = aliased(Report)
        inner = select(Report.id).where(Report.year > 1).subquery()
        cte = select(Report.id).cte()
        async with shop.site.context():
            await resolve(shop.db.create_all())
            await shop.run(insert(Report).values(id=1, year=7))
            await shop.run(update(Report).values(year=8))
            for statement in (
                select(Report.year),
                select(sa.func.max(Report.year)),
                select(other.year),
                select(Report.year).join(other, other.id == Report.id),
                select(Report.year).outerjoin(aliased(shop.Yearly, flat=True)),
                select(Report.year).where(Report.id.in_(select(inner.c.id))),
                select(Report.year).where(Report.id.in_(select(cte.c.id))),
                select(sa.literal(8)).where(sa.exists().where(Report.id == 1)),
            ):
                assert await shop.scalar(statement) == 8, str(statement)
            assert await shop.scalar(select(inner.c.id)) == 1
            assert await shop.scalar(select(cte.c.id)) == 1
            await shop.run(delete(Report))
            assert await shop.scalar(select(sa.func.count()).select_from(Report)) == 0

    async def test_statements_of_tables(self, shop: Shop) -> None:
        log = shop.log
        copy = insert(log).from_select(["line"], select(log.c.line + 1))
        async with shop.site.context():
            await resolve(shop.db.create_all())
            await shop.run(log.insert().values(line=1))
            await shop.run(copy)
            await shop.run(log.update().where(log.c.line == 2).values(line=5))
            for statement in (
                select(log).order_by(log.c.line.desc()),
                select(log.c.line).order_by(log.c.line.desc()),
                select(sa.func.max(log.c.line)),
                select(log.alias().c.line).order_by(text("1 DESC")),
                text("SELECT max(line) AS line FROM log").columns(log.c.line),
            ):
                assert await shop.scalar(statement) == 5, str(statement)
            await shop.run(log.delete())
            assert await shop.scalar(select(sa.func.count(log.c.line))) == 0

    async def test_unions(self, shop: Shop) -> None:
        Report, Yearly, log = shop.Report, shop.Yearly, shop.log
        inner = select(Report.id).subquery()
        unions = [
            sa.union(select(Report.id), select(Yearly.id)),
            sa.union_all(select(inner), select(Report.id)),
            sa.intersect(select(Report.id), select(inner.c.id)),
            sa.union(select(log.c.line), select(log.c.line)),
        ]
        async with shop.site.context():
            await resolve(shop.db.create_all())
            for union in unions:
                assert await shop.scalar(union) is None
                assert await resolve(shop.db.session.scalar(union)) is None
                assert (await resolve(shop.db.session.scalars(union))).all() == []

    async def test_polymorphic_models(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            shop.db.session.add(shop.Yearly(id=1, year=7))
            await resolve(shop.db.session.commit())
        async with shop.site.context():
            yearly = await resolve(shop.db.session.get(shop.Yearly, 1))
            assert yearly.year == 7
            await resolve(shop.db.session.refresh(yearly))
            found = await resolve(shop.db.session.scalars(select(shop.Yearly)))
            assert found.all() == [yearly]

    async def test_lazy_loads(self, shop: Shop) -> None:
        class Page(shop.db.Model):
            __bind_key__ = "reports"
            id: Mapped[int] = mapped_column(primary_key=True)
            report_id: Mapped[int] = mapped_column(sa.ForeignKey("report.id"))
            report = relationship(shop.Report)

        async with shop.site.context():
            await resolve(shop.db.create_all())
            shop.db.session.add(Page(report=shop.Report(year=7)))
            await resolve(shop.db.session.commit())
        async with shop.site.context():
            page = await resolve(shop.db.session.get(Page, 1))
            if shop.site.is_async:
                assert (await page.awaitable_attrs.report).year == 7
            else:
                assert page.report.year == 7

    async def test_what_does_not_say_can_be_told(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            result = shop.db.session.execute(
                text("SELECT id FROM report"), bind_arguments={"mapper": shop.Report}
            )
            assert (await resolve(result)).all() == []

    async def test_what_has_no_table_goes_to_the_default(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            assert await shop.scalar(text("SELECT 1")) == 1
            assert await shop.scalar(select(sa.literal(2))) == 2
            foreign = sa.Table("user", sa.MetaData(), sa.Column("id", sa.Integer))
            assert await shop.scalar(select(foreign)) is None


@pytest.mark.backends("sqlite", "postgresql", "mariadb")
class TestForeignModels:
    """Models and tables of another registry go to the default bind."""

    async def test_beside_those_of_db(self, shop: Shop) -> None:
        class Other(sa_orm.DeclarativeBase):
            pass

        class Guest(Other):
            __tablename__ = "guest"
            id: Mapped[int] = mapped_column(primary_key=True)

        async with shop.site.context():
            await resolve(shop.db.create_all())
            engine = shop.db.sync.engine
            with engine.begin() as connection:
                Other.metadata.create_all(connection)
            shop.db.session.add_all([Guest(id=1), shop.User(id=1), shop.Report(id=1)])
            await resolve(shop.db.session.commit())
            assert await shop.scalar(select(Guest.id)) == 1
            assert await shop.scalar(select(Other.metadata.tables["guest"].c.id)) == 1
            await shop.run(delete(Guest))
            assert await resolve(shop.db.session.get(Guest, 1)) is None
            await resolve(shop.db.session.commit())


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
async def test_session_joins_an_external_transaction(site: Site) -> None:
    class User(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    mode = {"join_transaction_mode": "create_savepoint"}
    async with site.context():
        await resolve(site.db.create_all())
        if site.is_async:
            async with site.db.engine.connect() as connection:
                transaction = await connection.begin()
                async with site.db.aio.sessionmaker(bind=connection, **mode) as session:
                    session.add(User(id=1))
                    await session.commit()
                    assert await session.get(User, 1) is not None
                await transaction.rollback()
        else:
            with site.db.engine.connect() as connection:
                transaction = connection.begin()
                with site.db.sync.sessionmaker(bind=connection, **mode) as session:
                    session.add(User(id=1))
                    session.commit()
                    assert session.get(User, 1) is not None
                transaction.rollback()
        assert await resolve(site.db.session.get(User, 1)) is None


@pytest.mark.backends("sqlite")
class TestSessionGetBind:
    async def test_statement_over_two_binds_names_both(self, shop: Shop) -> None:
        user, log = shop.db.metadata.tables["user"], shop.log
        of_models = select(shop.Report.id).join(
            shop.User, shop.User.id == shop.Report.id
        )
        async with shop.site.context():
            await resolve(shop.db.create_all())
            with pytest.raises(InvalidRequestError) as caught:
                await shop.run(select(log.c.line, user.c.id))
            assert str(caught.value) == (
                "The statement uses tables of several binds, 'logs', None (the default)"
                " (tables 'log', 'user'), and no database can join over them. Run one"
                " statement for each bind."
            )
            for statement in (
                of_models,
                sa.union(select(shop.Report.id), select(user)),
            ):
                with pytest.raises(InvalidRequestError) as caught:
                    await shop.run(statement)
                assert "several binds, 'reports', None (the default)" in str(
                    caught.value
                )
            with pytest.raises(sa.exc.DBAPIError):  # not for want of a bind
                await shop.run(select(shop.Report.id).where(text("nothing = 1")))

    async def test_unmapped_class_is_sqlalchemys_error(self, shop: Shop) -> None:
        async with shop.site.context():
            session = shop.db.sync.session()
            with pytest.raises(UnmappedClassError):
                session.get_bind(mapper=int)
            with pytest.raises(sa.exc.NoInspectionAvailable):
                session.get_bind(mapper=5)

    async def test_own_bind_of_a_session_wins(self, shop: Shop) -> None:
        """That is how a session joins an external transaction."""
        async with shop.site.context():
            engine = shop.db.sync.engines["logs"]
            with engine.connect() as connection:
                for options in (
                    {"bind": connection},
                    {"binds": {shop.User: connection}},
                ):
                    with shop.db.sync.sessionmaker(**options) as session:
                        assert session.get_bind(shop.User) is connection
            session = shop.db.sync.session()
            assert session.get_bind(shop.User, bind=engine) is engine

    async def test_bind_that_is_set_later_wins(self, shop: Shop) -> None:
        async with shop.site.context():
            session = shop.db.sync.session()
            user = sa.inspect(shop.User)
            assert session.get_bind(user) is shop.db.sync.engine
            session.bind = engine = shop.db.sync.engines["logs"]
            assert session.get_bind(user) is engine
            assert session.get_bind() is engine

    async def test_bind_mapper_decides(self, shop: Shop) -> None:
        async with shop.site.context():
            engine = shop.db.sync.engines["logs"]
            session = shop.db.sync.session()
            user = sa.inspect(shop.User)
            assert session.get_bind(user) is shop.db.sync.engine
            session.bind_mapper(shop.User, engine)
            assert session.get_bind(user) is engine
            with pytest.raises(sa.exc.UnboundExecutionError):
                session.get_bind(sa.inspect(shop.Report))


@pytest.mark.backends("sqlite")
class TestSameForm:
    """What is kept of a statement is not taken for another one's."""

    async def test_tables_of_one_name(self, shop: Shop) -> None:
        db = shop.db
        for key in (None, "reports", "logs"):
            db.Table("same", sa.Column("x", sa.Integer), bind_key=key)
        async with shop.site.context():
            await resolve(db.create_all())
            for number, key in enumerate((None, "reports", "logs")):
                table = db.metadatas[key].tables["same"]
                await shop.run(sa.insert(table).values(x=number))
                await resolve(db.session.commit())
            for _ in range(2):
                for number, key in enumerate((None, "reports", "logs")):
                    table = db.metadatas[key].tables["same"]
                    assert await shop.scalar(sa.select(table.c.x)) == number

    async def test_model_of_one_bind_after_another(self, shop: Shop) -> None:
        async with shop.site.context():
            await resolve(shop.db.create_all())
            for _ in range(2):
                for model in (shop.User, shop.Report, shop.Yearly):
                    statement = sa.select(sa.func.count()).select_from(model)
                    assert await shop.scalar(statement) == 0
                    assert await shop.scalar(sa.select(model)) is None

    async def test_model_that_is_gone_is_forgotten(self, shop: Shop) -> None:
        async with shop.site.context():

            def use_a_model() -> Any:
                class Short(shop.db.Model):
                    id: Mapped[int] = mapped_column(primary_key=True)

                session = shop.db.sync.session()
                session.get_bind(sa.inspect(Short))
                shop.db.metadata.remove(Short.__table__)
                return weakref.ref(Short)

            reference = use_a_model()
            gc.collect()
            assert reference() is None
