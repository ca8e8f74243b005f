"""Pages by number: which rows, which total, on both APIs and every database."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    ForeignKey,
    String,
    bindparam,
    case,
    func,
    literal_column,
    select,
    text,
    union,
    union_all,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import (
    Mapped,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    with_loader_criteria,
)
from support.apps import Site, resolve
from werkzeug.exceptions import NotFound

BACKENDS = pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")


@pytest.fixture
def shop(site: Site) -> Any:
    """A site with customers and their orders: 7, 6, 5 ... of each."""

    class Customer(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        town: Mapped[str] = mapped_column(String(20))
        orders = relationship("Order", back_populates="customer", order_by="Order.id")

    class Order(site.db.Model):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
        customer = relationship(Customer, back_populates="orders", lazy="joined")

    site.Customer, site.Order = Customer, Order  # type: ignore[attr-defined]
    return site


async def fill(shop: Any) -> None:
    await resolve(shop.db.create_all())
    towns = ("Bonn", "Bonn", "Cork", "Cork", "Cork", "Derby", "Derby")
    for id, town in enumerate(towns, 1):
        customer = shop.Customer(id=id, town=town)
        customer.orders = [shop.Order() for _ in range(8 - id)]
        shop.db.session.add(customer)
    await resolve(shop.db.session.commit())


async def walk(shop: Any, statement: Any, per_page: int, **options: Any) -> list[Any]:
    """Return the items of all pages, and check what each page says of the whole."""
    pages = [await resolve(shop.db.paginate(statement, per_page=per_page, **options))]
    while pages[-1].has_next:
        pages.append(await resolve(pages[-1].next()))
    items = [item for page in pages for item in page]
    for number, page in enumerate(pages, 1):
        assert page.page == number
        assert (page.total, page.pages) == (len(items), len(pages) if items else 0)
        assert page.total_is_exact
        assert len(page.items) == per_page or not page.has_next
        again = await resolve(
            shop.db.paginate(statement, page=number, per_page=per_page, **options)
        )
        assert (again.items, again.total) == (page.items, len(items))
    return items


@BACKENDS
@pytest.mark.parametrize("per_page", [1, 2, 3, 50])
class TestTotals:
    """The pages of a statement hold its rows, and its total is their number."""

    async def check(self, shop: Any, statement: Any, per_page: int) -> None:
        async with shop.context():
            await fill(shop)
            rows = (await resolve(shop.db.session.execute(statement))).all()
            rows = [row[0] if len(row) == 1 else row for row in rows]
            assert await walk(shop, statement, per_page) == rows
            assert rows

    async def test_distinct(self, shop: Any, per_page: int) -> None:
        town = shop.Customer.town
        await self.check(shop, select(town).distinct().order_by(town), per_page)

    async def test_group_by(self, shop: Any, per_page: int) -> None:
        Customer, Order = shop.Customer, shop.Order
        statement = (
            select(Customer.town, func.count(Order.id).label("orders"))
            .join(Order, Order.customer_id == Customer.id)
            .group_by(Customer.town)
            .having(func.count(Order.id) > 3)
            .order_by(text("orders"), Customer.town)
        )
        await self.check(shop, statement, per_page)

    @pytest.mark.parametrize(("limit", "offset"), [(4, 0), (4, 2), (100, 5), (3, 6)])
    async def test_limit(
        self, shop: Any, per_page: int, limit: int, offset: int
    ) -> None:
        statement = select(shop.Customer.id).order_by(shop.Customer.id.desc())
        await self.check(shop, statement.limit(limit).offset(offset), per_page)

    async def test_limit_and_offset_that_are_parameters(
        self, shop: Any, per_page: int
    ) -> None:
        statement = select(shop.Customer.id).order_by(shop.Customer.id)
        statement = statement.limit(bindparam("n", 5)).offset(bindparam("o", 2))
        await self.check(shop, statement, per_page)

    @pytest.mark.parametrize("combine", [union, union_all])
    async def test_union(self, shop: Any, per_page: int, combine: Any) -> None:
        customer = select(shop.Customer.id.label("n"))
        order = select(shop.Order.id.label("n")).where(shop.Order.id < 12)
        await self.check(shop, combine(customer, order).order_by("n"), per_page)

    async def test_union_of_rows_with_a_limit(self, shop: Any, per_page: int) -> None:
        Customer = shop.Customer
        both = union_all(*[select(Customer.id, Customer.town)] * 2)
        await self.check(shop, both.order_by("id").limit(9), per_page)

    async def test_joins_repeat_an_entity(self, shop: Any, per_page: int) -> None:
        Customer, Order = shop.Customer, shop.Order
        statement = select(Customer).join(Customer.orders).order_by(Order.id)
        await self.check(shop, statement, per_page)

    async def test_several_entities(self, shop: Any, per_page: int) -> None:
        Customer = shop.Customer
        other = aliased(Customer)
        statement = (
            select(Customer, other.town, other.id)
            .join(other, other.town == Customer.town)
            .order_by(Customer.id, other.id)
        )
        await self.check(shop, statement, per_page)

    async def test_expressions(self, shop: Any, per_page: int) -> None:
        late = case((shop.Customer.id > 3, "late"), else_="early")
        await self.check(shop, select(late).order_by(shop.Customer.id), per_page)

    async def test_loader_criteria(self, shop: Any, per_page: int) -> None:
        Customer = shop.Customer
        statement = (
            select(Customer)
            .options(with_loader_criteria(Customer, Customer.town != "Cork"))
            .order_by(Customer.id)
        )
        await self.check(shop, statement, per_page)


@BACKENDS
class TestEagerLoads:
    async def test_collections(self, shop: Any) -> None:
        Customer = shop.Customer
        statement = select(Customer).options(joinedload(Customer.orders))
        async with shop.context():
            await fill(shop)
            found = await walk(shop, statement.order_by(Customer.id), 2)
            assert [len(customer.orders) for customer in found] == [7, 6, 5, 4, 3, 2, 1]

    async def test_collections_of_entities_in_rows(self, shop: Any) -> None:
        Customer = shop.Customer
        statement = (
            select(Customer, Customer.town)
            .options(joinedload(Customer.orders))
            .order_by(Customer.id)
        )
        async with shop.context():
            await fill(shop)
            found = await walk(shop, statement, 3)
            assert [(c.id, len(c.orders), town[0]) for c, town in found][:3] == [
                (1, 7, "B"),
                (2, 6, "B"),
                (3, 5, "C"),
            ]

    @pytest.mark.parametrize("count", [True, False, 2, 1000, "estimate"])
    async def test_of_entities_that_a_join_repeats(self, shop: Any, count: Any) -> None:
        """Merging leaves a page short, which must not pass for the last one."""
        Customer, Order = shop.Customer, shop.Order
        statement = (
            select(Customer)
            .join(Order, Order.customer_id == Customer.id)
            .options(joinedload(Customer.orders))
            .order_by(Order.id)
        )
        async with shop.context():
            await fill(shop)
            seen, numbers = set(), []
            page = await resolve(shop.db.paginate(statement, per_page=4, count=count))
            assert [customer.id for customer in page] == [1]
            short = await resolve(shop.db.paginate(statement, per_page=7, count=count))
            assert [customer.id for customer in short] == [1]  # the 8th row is 2's
            while True:
                seen |= {customer.id for customer in page}
                numbers.append(page.page)
                if not page.has_next:
                    break
                page = await resolve(page.next())
            assert seen == {1, 2, 3, 4, 5, 6, 7}
            assert numbers == [1, 2, 3, 4, 5, 6, 7]  # 28 rows
            if count is True:
                assert page.total == 28
            named = statement.order_by(None).order_by("town").group_by(None)
            page = await resolve(shop.db.paginate(named, per_page=50))
            assert (len(page.items), page.total) == (7, 28)

    async def test_are_not_counted(self, shop: Any, statements: list[str]) -> None:
        Customer = shop.Customer
        statement = select(Customer).options(joinedload(Customer.orders))
        async with shop.context():
            await fill(shop)
            statements.clear()
            await resolve(shop.db.paginate(statement.order_by(Customer.id), per_page=2))
        assert len(statements) == 2
        assert "JOIN" in statements[0]
        assert "ORDER BY" in statements[0]
        assert "JOIN" not in statements[1]
        assert "ORDER BY" not in statements[1]


@pytest.fixture
def statements(shop: Any) -> Any:
    """The statements that the site sent to its database, transactions apart."""
    from sqlalchemy import Engine, event

    seen: list[str] = []

    def note(c: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


@BACKENDS
class TestCount:
    @pytest.mark.parametrize(
        ("page", "bound", "total", "is_exact", "pages", "shown"),
        [
            (1, 5, 5, False, 2, [1, 2, None]),
            (1, 6, 6, False, 2, [1, 2, None]),
            (2, 5, 6, False, 3, [1, 2, 3, None]),
            (3, 5, 7, True, 3, [1, 2, 3]),
            (1, 7, 7, True, 3, [1, 2, 3]),
            (1, 1000, 7, True, 3, [1, 2, 3]),
        ],
    )
    async def test_to_a_bound(
        self,
        shop: Any,
        page: int,
        bound: int,
        total: int,
        is_exact: bool,
        pages: int,
        shown: list[int | None],
    ) -> None:
        statement = select(shop.Customer).order_by(shop.Customer.id)
        async with shop.context():
            await fill(shop)
            found = await resolve(
                shop.db.paginate(statement, page=page, per_page=3, count=bound)
            )
            assert (found.total, found.total_is_exact) == (total, is_exact)
            assert found.pages == pages
            assert list(found.iter_pages()) == shown
            last = await resolve((await resolve(found.prev())).prev())
            while last.has_next:
                last = await resolve(last.next())
            assert (last.page, last.total, last.total_is_exact) == (3, 7, True)

    async def test_to_a_bound_that_was_passed_is_not_run(
        self, shop: Any, statements: list[str]
    ) -> None:
        statement = select(shop.Customer).order_by(shop.Customer.id)
        async with shop.context():
            await fill(shop)
            statements.clear()
            page = await resolve(
                shop.db.paginate(statement, page=2, per_page=2, count=3)
            )
        assert (page.total, len(statements)) == (4, 1)

    async def test_estimate_is_exact_for_few_rows(self, shop: Any) -> None:
        Customer = shop.Customer
        async with shop.context():
            await fill(shop)
            for statement in (
                select(Customer).order_by(Customer.id),
                select(Customer.town).distinct().order_by(Customer.town),
                select(Customer).where(Customer.id > bindparam(None, 4)),
                select(Customer).where(literal_column("1 = 0")),
                select(Customer).where(Customer.id == 3),
                select(Customer).join(Customer.orders).order_by(Customer.id),
                union_all(*[select(Customer.id)] * 2),
            ):
                exact = await resolve(shop.db.paginate(statement, per_page=1))
                guess = await resolve(
                    shop.db.paginate(statement, per_page=1, count="estimate")
                )
                assert (guess.total, guess.total_is_exact) == (exact.total, True)

    @pytest.mark.backends("postgresql", "postgresql-psycopg", "mariadb")
    async def test_estimate_of_many_rows(
        self, shop: Any, backend: Any, statements: list[str]
    ) -> None:
        Customer = shop.Customer
        numbers = (
            "SELECT seq AS id, 'Bonn' FROM seq_1_to_40000"
            if backend.name == "mariadb"
            else "SELECT n AS id, 'Bonn' FROM generate_series(1, 40000) n"
        )
        analyze = "ANALYZE TABLE" if backend.name == "mariadb" else "ANALYZE"
        async with shop.context():
            await resolve(shop.db.create_all())
            for command in (
                f"INSERT INTO customer (id, town) {numbers}",
                f"{analyze} customer",
            ):
                await resolve(shop.db.session.execute(text(command)))
            await resolve(shop.db.session.commit())
            for statement, number in (
                (select(Customer).order_by(Customer.id), 40_000),
                (select(Customer).where(Customer.id > 20_000), 20_000),
            ):
                statements.clear()
                page = await resolve(shop.db.paginate(statement, count="estimate"))
                assert not page.total_is_exact
                assert number * 0.7 < page.total < number * 1.3
                assert not any("count" in each for each in statements)
                assert list(page.iter_pages())[-1] is None
                assert page.has_next
            # The end is known where it is seen, and the guess never contradicts it.
            page = await resolve(
                shop.db.paginate(
                    select(Customer).order_by(Customer.id),
                    page=400,
                    per_page=100,
                    count="estimate",
                )
            )
            assert (page.total, page.total_is_exact, page.has_next) == (
                40_000,
                True,
                False,
            )

    @pytest.mark.parametrize(
        ("count", "error", "message"),
        [
            (0, ValueError, "count: expected a positive number to count to, got 0."),
            ("rows", TypeError, "or 'estimate', got 'rows'."),
            (None, TypeError, "or 'estimate', got None."),
            (2.0, TypeError, "or 'estimate', got 2.0."),
        ],
    )
    @pytest.mark.backends("sqlite")
    async def test_bad_argument(
        self, shop: Any, count: Any, error: type[Exception], message: str
    ) -> None:
        async with shop.context():
            with pytest.raises(error) as caught:
                await resolve(shop.db.paginate(select(shop.Customer), count=count))
        assert str(caught.value).endswith(message)


@BACKENDS
@pytest.mark.parametrize(
    ("page", "per_page"),
    [
        *((2**31, 1), (2**31 // 100, 100), (2**62, 1), (2**63 - 1, 1), (2**63, 1)),
        *((2**64, 100), (10**30, 100), (2, 2**62), (2, 2**63 - 1), (1, 2**63 - 1)),
    ],
)
async def test_any_number_is_a_page_or_a_404(
    shop: Any, page: int, per_page: int
) -> None:
    statement = select(shop.Customer).order_by(shop.Customer.id)
    async with shop.context():
        await fill(shop)
        options = {"page": page, "per_page": per_page, "max_per_page": None}
        if page > 1:
            with pytest.raises(NotFound):
                await resolve(shop.db.paginate(statement, **options))
        for each in (statement, statement.limit(5).offset(2**31 + 7)):
            found = await resolve(shop.db.paginate(each, error_out=False, **options))
            assert found.total == (7 if each is statement else 0)
            assert not found.has_next


@pytest.mark.backends("sqlite")
class TestArguments:
    async def test_unknown_keyword(self, shop: Any) -> None:
        async with shop.context():
            with pytest.raises(TypeError) as caught:
                await resolve(shop.db.paginate(select(shop.Customer), per_pge=3))
            assert str(caught.value) == (
                "paginate() got an unexpected keyword argument 'per_pge'. Did you mean"
                " 'per_page'?"
            )
            if not shop.is_async:
                with pytest.raises(TypeError, match=r"'per_pge'\. Did you mean"):
                    shop.Customer.query.paginate(per_pge=3)

    async def test_limit_of_per_page_is_positive(self, shop: Any) -> None:
        async with shop.context():
            with pytest.raises(ValueError, match=r"^max_per_page: .* got 0\.$"):
                await resolve(shop.db.paginate(select(shop.Customer), max_per_page=0))

    async def test_statement_without_pages(self, shop: Any) -> None:
        async with shop.context():
            for statement in (text("SELECT 1"), shop.Customer, "SELECT 1"):
                with pytest.raises(TypeError, match=r"^paginate: expected a select\("):
                    await resolve(shop.db.paginate(statement))
            await fill(shop)
            source = text("SELECT id FROM customer").columns(shop.Customer.id)
            rows = select(source.subquery()).order_by("id")
            assert await walk(shop, rows, 3) == [1, 2, 3, 4, 5, 6, 7]

    async def test_limit_that_is_no_number(self, shop: Any) -> None:
        async with shop.context():
            for statement in (
                select(shop.Customer).limit(literal_column("1 + 1")),
                select(shop.Customer).fetch(3),
            ):
                with pytest.raises(ArgumentError, match="cannot be shown in pages"):
                    await resolve(shop.db.paginate(statement))

    async def test_legacy_query(self, shop: Any) -> None:
        Customer = shop.Customer
        if shop.is_async:
            return  # test_lookup has the error
        async with shop.context():
            await fill(shop)
            query = Customer.query.order_by(Customer.id)
            page = query.limit(5).paginate(per_page=2)
            assert (page.total, page.pages) == (5, 3)
            assert [c.id for c in page.next().next()] == [5]
            page = Customer.query.join(Customer.orders).paginate(per_page=7)
            assert (page.total, [c.id for c in page]) == (28, [1])
            assert page.has_next
            towns = query.with_entities(Customer.town).order_by(None).distinct()
            assert towns.paginate(per_page=2).total == 3
            joined = query.options(joinedload(Customer.orders)).paginate(per_page=3)
            assert ([c.id for c in joined], joined.total) == ([1, 2, 3], 7)
            assert query.paginate(per_page=3, count=4).total == 4
            assert query.paginate(per_page=3, count=False).has_next


@pytest.mark.backends("sqlite")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    page=st.text(max_size=8) | st.integers().map(str) | st.floats().map(str),
    per_page=st.text(max_size=8) | st.integers().map(str),
)
async def test_any_query_string_is_a_page_or_a_404(
    shop: Any, page: str, per_page: str
) -> None:
    async with shop.context():
        await resolve(shop.db.create_all())
    query = urlencode({"page": page, "per_page": per_page}, errors="surrogatepass")
    async with shop.request(f"/?{query}"):
        with suppress(NotFound):
            await resolve(shop.db.paginate(select(shop.Customer)))
        await resolve(shop.db.paginate(select(shop.Customer), error_out=False))
