"""Touching what is not loaded, on an object of an async session."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, select
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.orm import Mapped, deferred, mapped_column, relationship, selectinload

from dualchemy import LazyLoadError


@pytest.fixture
async def blog(backend: Any, make_site: Any) -> Any:
    """An app with a user and posts, in an app context."""
    site: Any = make_site("quart", SQLALCHEMY_DATABASE_URI=backend.url)

    class User(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20), default="ada")
        bio: Mapped[str] = deferred(mapped_column(String(20), default=""))
        posts = relationship("Post", back_populates="author")
        pages = relationship("Post", lazy="dynamic", viewonly=True)

    class Post(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        author_id: Mapped[int] = mapped_column(ForeignKey(User.id))
        author = relationship(User, back_populates="posts")

    site.User, site.Post = User, Post
    async with site.context():
        await site.db.create_all()
        site.db.session.add_all([User(id=1), Post(author_id=1)])
        await site.db.session.commit()
        await site.db.session.remove()
        yield site


pytestmark = pytest.mark.backends(
    "sqlite", "postgresql", "postgresql-psycopg", "mariadb"
)


async def test_relationship(blog: Any) -> None:
    user = await blog.db.get_or_404(blog.User, 1)
    with pytest.raises(LazyLoadError) as caught:
        _ = user.posts
    assert str(caught.value).startswith(
        "'User.posts' is not loaded, and an async session cannot load it when it is"
        " touched. Load it with the statement,"
        " select(User).options(selectinload(User.posts)), or await it:"
        " await user.awaitable_attrs.posts."
    )
    assert isinstance(caught.value, MissingGreenlet)
    # What the message says works, and nothing was broken.
    (post,) = await user.awaitable_attrs.posts
    assert post.author is user
    statement = select(blog.User).options(selectinload(blog.User.posts))
    assert (await blog.db.one_or_404(statement)).posts == [post]


async def test_many_to_one_relationship(blog: Any) -> None:
    post = await blog.db.get_or_404(blog.Post, 1)
    with pytest.raises(LazyLoadError, match=r"'Post\.author' is not loaded"):
        _ = post.author
    assert (await post.awaitable_attrs.author).name == "ada"


async def test_expired_attribute(blog: Any) -> None:
    user = await blog.db.get_or_404(blog.User, 1)
    blog.db.session.expire(user, ["name"])
    with pytest.raises(LazyLoadError) as caught:
        _ = user.name
    assert str(caught.value).startswith(
        "'User.name': expired or deferred, and an async session cannot load it when it"
        " is touched. Load it first: await db.session.refresh(user), or await it: await"
        " user.awaitable_attrs.name."
    )
    await blog.db.session.refresh(user)
    assert user.name == "ada"


async def test_deferred_attribute(blog: Any) -> None:
    user = await blog.db.get_or_404(blog.User, 1)
    with pytest.raises(LazyLoadError, match=r"'User\.bio': expired or deferred"):
        _ = user.bio
    assert await user.awaitable_attrs.bio == ""


async def test_dynamic_relationship(blog: Any) -> None:
    user = await blog.db.get_or_404(blog.User, 1)
    with pytest.raises(LazyLoadError, match="A dynamic relationship is such a"):
        user.pages.all()
    found = await blog.db.session().run_sync(lambda _: user.pages.all())
    assert len(found) == 1


async def test_statement_on_the_proxied_session(blog: Any) -> None:
    session = blog.db.session().sync_session
    with pytest.raises(LazyLoadError, match="nothing awaits it"):
        session.execute(select(blog.User))


async def test_sync_session_loads_as_ever(blog: Any) -> None:
    user = blog.db.sync.session.get(blog.User, 1)
    assert len(user.posts) == 1
    assert user.pages.count() == 1
