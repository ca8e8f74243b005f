"""URLs of the other pages, and the template that shows them, on both frameworks."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import FRAMEWORKS, Site, fresh_db, resolve

from dualchemy import ContextError

pytestmark = pytest.mark.backends("sqlite")


@pytest.fixture
async def shop(site: Site) -> Any:
    """A site with nine items."""

    class Item(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    site.Item = Item  # type: ignore[attr-defined]
    async with site.context():
        await resolve(site.db.create_all())
        site.db.session.add_all([Item(id=n) for n in range(1, 10)])
        await resolve(site.db.session.commit())
    return site


async def numbered(shop: Any, **options: Any) -> Any:
    statement = select(shop.Item).order_by(shop.Item.id)
    return await resolve(shop.db.paginate(statement, per_page=2, **options))


async def by_cursor(shop: Any, **options: Any) -> Any:
    statement = select(shop.Item).order_by(shop.Item.id)
    return await resolve(shop.db.paginate_keyset(statement, per_page=2, **options))


def pages_of(links: dict[str, str]) -> dict[str, str]:
    return {rel: dict(parse_qsl(urlsplit(u).query))["page"] for rel, u in links.items()}


class TestLinks:
    @pytest.mark.parametrize(
        ("query", "options", "expected"),
        [
            ("", {}, {"first": "1", "next": "2", "last": "5"}),
            ("?page=3", {}, {"first": "1", "prev": "2", "next": "4", "last": "5"}),
            ("?page=5", {}, {"first": "1", "prev": "4", "last": "5"}),
            ("", {"count": False}, {"first": "1", "next": "2"}),
            ("", {"count": 4}, {"first": "1", "next": "2"}),
            ("?page=5", {"count": 4}, {"first": "1", "prev": "4", "last": "5"}),
        ],
    )
    async def test_relations(
        self, shop: Any, query: str, options: Any, expected: dict[str, str]
    ) -> None:
        async with shop.request(f"/items{query}"):
            page = await numbered(shop, **options)
            assert pages_of(page.links()) == expected

    async def test_of_no_items(self, shop: Any) -> None:
        nothing = select(shop.Item).where(shop.Item.id < 0)
        async with shop.request("/items"):
            page = await resolve(shop.db.paginate(nothing))
            assert pages_of(page.links()) == {"first": "1", "last": "1"}

    async def test_other_arguments_are_kept(self, shop: Any) -> None:
        query = "tag=a&tag=b%26c&q=%C3%A9%20%3C%3E%22&page=2&empty="
        async with shop.request(f"/caf%C3%A9/%3E?{query}"):
            page = await numbered(shop)
            following = urlsplit(page.links()["next"])
            assert parse_qsl(following.query, keep_blank_values=True) == [
                *(("tag", "a"), ("tag", "b&c"), ("q", 'é <>"'), ("empty", "")),
                ("page", "3"),
            ]
            assert following.path == "/caf%C3%A9/%3E"
            assert following.netloc
            assert re.fullmatch(r"[!-~]+", following.geturl())
            assert page.url(7) == page.links(external=False)["next"].replace("=3", "=7")
            assert page.url(7).startswith("/caf%C3%A9/%3E?tag=a&")
            assert page.url(3, external=True) == following.geturl()

    async def test_by_cursor(self, shop: Any) -> None:
        async with shop.request("/items?q=x"):
            page = await by_cursor(shop)
            assert list(page.links()) == ["first", "next", "last"]
            following = page.links(external=False)["next"]
            last = page.links(external=False)["last"]
        async with shop.request(following):
            page = await by_cursor(shop)
            assert [item.id for item in page] == [3, 4]
            assert list(page.links()) == ["first", "prev", "next", "last"]
            first = page.links(external=False)["first"]
        assert first == "/items?q=x&cursor="
        async with shop.request(first):
            assert [item.id for item in await by_cursor(shop)] == [1, 2]
        async with shop.request(last):
            page = await by_cursor(shop)
            assert [item.id for item in page] == [8, 9]
            assert list(page.links()) == ["first", "prev", "last"]

    async def test_header(self, shop: Any) -> None:
        from werkzeug.http import parse_options_header

        async with shop.request("/items?page=2&q=%3E%2C"):
            page = await numbered(shop)
            header = page.link_header()
            found = {}
            for part in header.split(", "):
                url, _, rest = part.partition("; ")
                assert url[0] + url[-1] == "<>"
                found[parse_options_header(f"x; {rest}")[1]["rel"]] = url[1:-1]
            assert found == page.links()

    async def test_under_a_prefix(self, shop: Any) -> None:
        if shop.is_async:
            context = shop.app.test_request_context("/items", root_path="/shop")
            async with context:
                url = (await numbered(shop)).url(2)
        else:
            with shop.app.test_request_context("/items", "http://example.org/shop"):
                url = (await numbered(shop)).url(2)
        assert url == "/shop/items?page=2"

    async def test_outside_a_request(self, shop: Any) -> None:
        async with shop.context():
            for page in (await numbered(shop), await by_cursor(shop)):
                with pytest.raises(ContextError, match="Working outside of a request"):
                    page.links()


class TestTemplate:
    """``{% from "dualchemy/pagination.html" import page_links %}``"""

    SOURCE = '{% from "dualchemy/pagination.html" import page_links %}'

    async def render(self, shop: Any, source: str, **context: Any) -> str:
        if shop.is_async:
            from quart import render_template_string

            return str(await render_template_string(source, **context))
        from flask import render_template_string as render

        return render(source, **context)

    async def test_pages_by_number(self, shop: Any) -> None:
        source = self.SOURCE + "{{ page_links(page, right_current=1) }}"
        async with shop.request("/items?q=%3C%22&page=2"):
            text = await self.render(shop, source, page=await numbered(shop))
        links = re.findall(r"<a href=\"([^\"]*)\"([^>]*)>([^<]*)</a>", text)
        assert [(name, rest.strip()) for _, rest, name in links] == [
            ("Previous", 'rel="prev"'),
            ("1", ""),
            ("2", 'aria-current="page"'),
            ("3", ""),
            ("4", ""),
            ("5", ""),
            ("Next", 'rel="next"'),
        ]
        assert unescape(links[0][0]) == "/items?q=%3C%22&page=1"
        assert '<nav class="pagination" aria-label="Pages">' in text
        assert text.count("<li") == text.count("</li>") == 7

    async def test_gaps_and_words(self, shop: Any) -> None:
        source = self.SOURCE + (
            "{{ page_links(page, label='Seiten', previous='Zurück', next='Weiter',"
            " left_edge=1, left_current=0, right_current=0, right_edge=1) }}"
        )
        async with shop.request("/items?page=3"):
            text = await self.render(shop, source, page=await numbered(shop))
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).split()
        assert words == ["Zurück", "1", "…", "3", "…", "5", "Weiter"]
        assert text.count('<li aria-hidden="true">…</li>') == 2
        assert 'aria-label="Seiten"' in text

    async def test_pages_by_cursor(self, shop: Any) -> None:
        source = self.SOURCE + "{{ page_links(page) }}"
        names, url = [], "/items"
        while url:
            async with shop.request(url):
                text = await self.render(shop, source, page=await by_cursor(shop))
            names.append(re.findall(r">(\w+)</a>", text))
            found = re.search(r'<a href="([^"]*)" rel="next"', text)
            url = unescape(found[1]) if found else ""
        assert names == [
            ["Next", "Last"],
            *[["First", "Previous", "Next", "Last"]] * 3,
            ["First", "Previous"],
        ]

    async def test_one_page_has_no_links(self, shop: Any) -> None:
        source = self.SOURCE + "{{ page_links(page) }}"
        few = select(shop.Item).where(shop.Item.id < 3)
        async with shop.request("/items"):
            for call in (shop.db.paginate, shop.db.paginate_keyset):
                page = await resolve(call(few, per_page=2))
                assert (await self.render(shop, source, page=page)).strip() == ""

    async def test_total_that_is_not_known(self, shop: Any) -> None:
        source = self.SOURCE + "{{ page_links(page) }}"
        async with shop.request("/items?page=2"):
            page = await numbered(shop, count=False)
            text = await self.render(shop, source, page=page)
        assert re.findall(r">(\w+)</a>", text) == ["Previous", "Next"]

    @pytest.mark.parametrize("rendered_before", [False, True])
    @pytest.mark.parametrize("name", FRAMEWORKS)
    def test_template_of_the_app_wins(
        self, tmp_path: Path, name: str, rendered_before: bool
    ) -> None:
        app = FRAMEWORKS[name]("site", root_path=str(tmp_path))
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        if rendered_before:
            assert app.jinja_env.loader is not None
        fresh_db().init_app(app)
        found = app.jinja_env.get_template("dualchemy/pagination.html")
        assert "page_links" in Path(found.filename).read_text()
        folder = tmp_path / "templates" / "dualchemy"
        folder.mkdir(parents=True)
        (folder / "pagination.html").write_text("mine")
        app.jinja_env.cache.clear()
        found = app.jinja_env.get_template("dualchemy/pagination.html")
        assert Path(found.filename).read_text() == "mine"

    def test_init_app_makes_no_environment(
        self, make_sync_site: Callable[..., Site]
    ) -> None:
        """Options that the app sets later still count."""
        site = make_sync_site("flask", SQLALCHEMY_DATABASE_URI="sqlite://")
        assert "jinja_env" not in vars(site.app)
