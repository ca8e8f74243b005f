"""One row or ``404 Not Found``, and a page of rows, on both APIs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, String, event, select
from sqlalchemy.exc import LegacyAPIWarning
from sqlalchemy.orm import Mapped, joinedload, mapped_column, relationship
from support.apps import Site, resolve
from werkzeug.exceptions import NotFound

from dualchemy import Pagination
from dualchemy.pagination import BasePagination


@pytest.fixture
def models(site: Site) -> Any:
    """A site with users and posts."""

    class User(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20), default="x")
        posts = relationship("Post", back_populates="author")

    class Post(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        author_id: Mapped[int] = mapped_column(ForeignKey(User.id))
        author = relationship(User, back_populates="posts")

    site.User, site.Post = User, Post  # type: ignore[attr-defined]
    return site


async def fill(site: Any, count: int) -> None:
    await resolve(site.db.create_all())
    site.db.session.add_all(
        [site.User(id=n, name=f"n{n % 3}") for n in range(1, count + 1)]
    )
    await resolve(site.db.session.commit())


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
class TestLookup:
    async def test_found(self, models: Any) -> None:
        db, User = models.db, models.User
        async with models.context():
            await fill(models, 3)
            assert (await resolve(db.get_or_404(User, 2))).id == 2
            assert (await resolve(db.first_or_404(select(User).where(User.id > 1)))).id
            assert await resolve(db.first_or_404(select(User.name))) == "n1"
            assert (await resolve(db.one_or_404(select(User).filter_by(id=3)))).id == 3

    async def test_not_found(self, models: Any) -> None:
        db, User = models.db, models.User
        nobody = select(User).where(User.id == 99)
        async with models.context():
            await fill(models, 3)
            for call in (
                lambda: db.get_or_404(User, 99, description="No such user."),
                lambda: db.first_or_404(nobody, description="No such user."),
                lambda: db.one_or_404(nobody, description="No such user."),
                lambda: db.one_or_404(select(User), description="No such user."),
            ):
                with pytest.raises(NotFound) as caught:
                    await resolve(call())
                assert caught.value.description == "No such user."

    async def test_options_reach_session_get(self, models: Any) -> None:
        async with models.context():
            await fill(models, 1)
            user = await resolve(
                models.db.get_or_404(
                    models.User, 1, options=[joinedload(models.User.posts)]
                )
            )
            assert user.__dict__["posts"] == []


@pytest.mark.backends("sqlite")
async def test_not_found_is_a_404_response(models: Any) -> None:
    @models.view("/users/<int:id>")
    async def user(id: int) -> str:
        return (await resolve(models.db.get_or_404(models.User, id))).name

    if not models.is_async:

        def plain(id: int) -> str:
            return str(models.db.get_or_404(models.User, id).name)

        models.app.view_functions["user"] = plain
    async with models.context():
        await fill(models, 1)
    assert await models.get("/users/1") == (200, "n1")
    assert (await models.get("/users/2"))[0] == 404


async def page_of(site: Any, statement: Any = None, **options: Any) -> Any:
    statement = (
        select(site.User).order_by(site.User.id) if statement is None else statement
    )
    return await resolve(site.db.paginate(statement, **options))


@pytest.mark.backends("sqlite", "postgresql", "postgresql-psycopg", "mariadb")
async def test_pages(models: Any) -> None:
    async with models.context():
        await fill(models, 45)
        page = await page_of(models)
        assert [user.id for user in page.items] == list(range(1, 21))
        assert list(page) == page.items
        assert (page.page, page.per_page, page.total, page.pages) == (1, 20, 45, 3)
        assert (page.first, page.last) == (1, 20)
        assert (page.has_prev, page.prev_num) == (False, None)
        assert (page.has_next, page.next_num) == (True, 2)

        page = await resolve(page.next())
        assert [user.id for user in page] == list(range(21, 41))
        page = await resolve(page.next())
        assert [user.id for user in page] == list(range(41, 46))
        assert (page.first, page.last, page.total) == (41, 45, 45)
        assert (page.has_next, page.next_num, page.prev_num) == (False, None, 2)
        page = await resolve(page.prev())
        assert (page.page, page.first) == (2, 21)


@pytest.mark.backends("sqlite")
class TestPagination:
    async def test_empty(self, models: Any) -> None:
        async with models.context():
            await fill(models, 0)
            page = await page_of(models)
        assert (page.items, page.total, page.pages) == ([], 0, 0)
        assert (page.first, page.last) == (0, 0)
        assert list(page.iter_pages()) == []

    @pytest.mark.parametrize(
        ("query", "page", "per_page"),
        [
            ("", 1, 20),
            ("?page=2&per_page=10", 2, 10),
            ("?per_page=1000", 1, 100),
            ("?page=%202", 2, 20),
        ],
    )
    async def test_arguments_come_from_the_request(
        self, models: Any, query: str, page: int, per_page: int
    ) -> None:
        async with models.context():
            await fill(models, 45)
        async with models.request(f"/{query}"):
            found = await page_of(models)
        assert (found.page, found.per_page) == (page, per_page)

    @pytest.mark.parametrize(
        "query",
        [
            *("page=x", "page=0", "page=-1", "page=9", "page=1.5", "page="),
            *("per_page=0", "per_page=x", "page=" + "9" * 30, "page=" + "9" * 5000),
            *("page=%00", "page=%D9%A9", "page=9223372036854775807"),
        ],
    )
    async def test_bad_arguments_are_404_or_defaults(
        self, models: Any, query: str
    ) -> None:
        async with models.context():
            await fill(models, 45)
        async with models.request(f"/?{query}"):
            with pytest.raises(NotFound):
                await page_of(models)
            found = await page_of(models, error_out=False)
        assert found.page >= 1
        assert found.per_page >= 1
        assert found.total == 45

    async def test_given_arguments_win_over_the_request(self, models: Any) -> None:
        async with models.context():
            await fill(models, 45)
        async with models.request("/?page=x&per_page=x"):
            page = await page_of(models, page=3, per_page=15)
        assert [user.id for user in page] == list(range(31, 46))

    async def test_argument_of_a_wrong_type(self, models: Any) -> None:
        async with models.context():
            with pytest.raises(TypeError) as caught:
                await page_of(models, page="2")
            assert str(caught.value) == "page: expected an int, got '2'."
            with pytest.raises(TypeError):
                await page_of(models, pgae=2)

    @pytest.mark.parametrize(("limit", "per_page"), [(30, 30), (None, 1000)])
    async def test_limit_of_per_page(
        self, models: Any, limit: int | None, per_page: int
    ) -> None:
        async with models.context():
            await fill(models, 1)
            page = await page_of(models, per_page=1000, max_per_page=limit)
            assert page.per_page == per_page
            assert (await resolve(page.prev())).per_page == per_page

    async def test_per_page_beyond_the_databases_integers(self, models: Any) -> None:
        async with models.context():
            await fill(models, 3)
            page = await page_of(models, per_page=10**30, max_per_page=None)
            assert page.total == 3
            assert (
                await page_of(
                    models, page=2, per_page=10**30, error_out=False, max_per_page=None
                )
            ).items == []

    async def test_counts_only_where_the_page_does_not_tell(self, models: Any) -> None:
        statements: list[str] = []
        async with models.context():
            await fill(models, 45)
            engine = getattr(models.db.engine, "sync_engine", models.db.engine)
            event.listen(
                engine,
                "before_cursor_execute",
                lambda c, cursor, statement, *rest: statements.append(statement),
            )
            for number, per_page, counted in (
                (1, 20, True),
                (2, 20, True),
                (3, 20, False),
                (1, 50, False),
                (3, 15, False),
                (2, 15, True),
            ):
                statements.clear()
                page = await page_of(models, page=number, per_page=per_page)
                assert page.total == 45
                assert any("count" in each for each in statements) is counted
            statements.clear()
            page = await page_of(models, count=False)
            assert (page.total, page.pages, len(statements)) == (None, 0, 1)
            assert page.has_next
            assert not (await page_of(models, page=3, count=False)).has_next

    async def test_several_columns_come_as_rows(self, models: Any) -> None:
        User = models.User
        async with models.context():
            await fill(models, 3)
            page = await page_of(models, select(User.id, User.name).order_by(User.id))
            assert page.items == [(1, "n1"), (2, "n2"), (3, "n0")]
            assert page.items[0].name == "n1"
            page = await page_of(models, select(User, User.id).order_by(User.id))
            assert [(user.id, id) for user, id in page] == [(1, 1), (2, 2), (3, 3)]

    async def test_equal_values_of_a_column_are_rows_of_their_own(
        self, models: Any
    ) -> None:
        async with models.context():
            await fill(models, 6)
            page = await page_of(models, select(models.User.name).order_by("name"))
        assert page.items == ["n0", "n0", "n1", "n1", "n2", "n2"]
        assert page.total == 6

    async def test_joined_eager_loads_repeat_no_entity(self, models: Any) -> None:
        User, Post = models.User, models.Post
        async with models.context():
            await fill(models, 5)
            models.db.session.add_all([Post(author_id=n) for n in (1, 1, 1, 2)])
            await resolve(models.db.session.commit())
            statement = select(User).options(joinedload(User.posts)).order_by(User.id)
            page = await page_of(models, statement, per_page=2)
            assert [len(user.posts) for user in page] == [3, 1]
            assert page.total == 5

    @pytest.mark.parametrize("total", [0, 1, 5, 6])
    async def test_count_respects_distinct_and_limit(
        self, models: Any, total: int
    ) -> None:
        User = models.User
        async with models.context():
            await fill(models, total)
            distinct = select(User.name).distinct().order_by(User.name)
            page = await page_of(models, distinct, per_page=1)
            assert page.total == min(total, 3)

    async def test_pages_are_of_the_apis_class(self, models: Any) -> None:
        async with models.context():
            await fill(models, 1)
            page = await page_of(models)
        assert isinstance(page, BasePagination)
        assert isinstance(page, Pagination) is not models.is_async
        assert repr(page).endswith("page 1 of 1, 1 items>")

    async def test_legacy_query(self, models: Any) -> None:
        if models.is_async:
            async with models.context():
                with pytest.raises(RuntimeError) as caught:
                    _ = models.User.query
            assert str(caught.value) == (
                "'User.query' is the sync API's, and would block the event loop. Under"
                " Quart write 'await db.session.scalars(select(User).where(...))'."
            )
            return
        async with models.context():
            await fill(models, 45)
            query = models.User.query.order_by(models.User.id)
            page = query.paginate(page=2)
            assert (page.total, page.pages, page.first) == (45, 3, 21)
            assert page.next().items[0].id == 41
            with pytest.warns(LegacyAPIWarning):
                assert query.get_or_404(3).id == 3
            assert query.first_or_404().id == 1
            assert models.User.query.filter_by(id=4).one_or_404().id == 4
            with pytest.warns(LegacyAPIWarning), pytest.raises(NotFound):
                query.get_or_404(99)
            for call in (
                lambda: models.User.query.filter_by(id=99).first_or_404(),
                lambda: models.User.query.one_or_404(),
            ):
                with pytest.raises(NotFound):
                    call()


class Numbers(BasePagination[int]):
    """Pages of the numbers below ``stop``."""

    def _query_items(self) -> list[int]:
        numbers = range(self._query_args["stop"])
        return list(numbers[self._query_offset : self._query_offset + self.per_page])

    def _query_count(self) -> int:
        return int(self._query_args["stop"])


@settings(deadline=None)  # the machine may be busy
@given(
    page=st.integers(1, 60),
    stop=st.integers(0, 500),
    edges=st.tuples(*[st.integers(0, 6)] * 4),
)
def test_iter_pages_shows_each_page_once_in_order(
    page: int, stop: int, edges: tuple[int, int, int, int]
) -> None:
    found = Numbers(page=page, per_page=10, error_out=False, stop=stop)
    left_edge, left_current, right_current, right_edge = edges

    shown = list(
        found.iter_pages(
            left_edge=left_edge,
            left_current=left_current,
            right_current=right_current,
            right_edge=right_edge,
        )
    )

    numbers = [number for number in shown if number is not None]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(1, found.pages + 1))
    assert set(range(1, min(left_edge, found.pages) + 1)) <= set(numbers)
    assert set(range(found.pages - right_edge + 1, found.pages + 1)) - set(
        range(-9, 1)
    ) <= set(numbers)
    if page <= found.pages:
        assert page in numbers
    for before, number, after in zip(
        [0, *shown], shown, [*shown[1:], None], strict=False
    ):
        if number is None:  # a gap stands for one page at least
            assert (found.pages + 1 if after is None else after) - (before or 0) > 1


def test_iter_pages_as_documented() -> None:
    page = Numbers(page=7, per_page=10, stop=200)
    assert list(page.iter_pages()) == [
        *(1, 2, None, 5, 6, 7, 8, 9, 10, 11, None, 19, 20)
    ]


def test_subclass_must_say_how_to_query() -> None:
    class OnlyItems(BasePagination[int]):
        def _query_items(self) -> list[int]:
            return [0] * 20

    with pytest.raises(NotImplementedError):
        BasePagination(page=1)
    with pytest.raises(NotImplementedError):
        OnlyItems(page=1)
