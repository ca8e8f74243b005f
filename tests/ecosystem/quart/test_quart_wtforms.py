"""Quart-WTForms: create and edit a row by a form, with a validator that asks the
database.
"""

from __future__ import annotations

import asyncio
import re

import pytest
from quart import render_template_string
from quart_wtf import QuartForm
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site
from wtforms import StringField, ValidationError
from wtforms.validators import DataRequired

from dualchemy import ConcurrentUseError

pytestmark = pytest.mark.backends("sqlite", "postgresql")

TEMPLATE = """<form method=post>{{ form.hidden_tag() }}{{ form.name() }}
{{ form.errors }}</form>{% for user in page %}<li>{{ user.name }}{% endfor %}"""


async def test_form(site: Site) -> None:
    app, db = site.app, site.db

    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    class UserForm(QuartForm):
        name = StringField("Name", validators=[DataRequired()])

        async def async_validators_name(self, field: StringField) -> None:
            if await db.session.scalar(select(User).filter_by(name=field.data)):
                raise ValidationError("The name is taken.")

    async def edit(user: User) -> tuple[str, int]:
        form = await UserForm.create_form(obj=user)
        status = 200
        if await form.validate_on_submit():
            form.populate_obj(user)
            db.session.add(user)
            await db.session.commit()
            status = 201
        page = await db.paginate(select(User).order_by(User.name))
        return await render_template_string(TEMPLATE, form=form, page=page), status

    @app.route("/users", methods=["GET", "POST"])
    async def create() -> tuple[str, int]:
        return await edit(User())

    @app.route("/users/<int:id>", methods=["GET", "POST"])
    async def change(id: int) -> tuple[str, int]:
        return await edit(await db.get_or_404(User, id))

    async with site.context():
        await db.create_all()
    client = app.test_client()

    async def submit(path: str, name: str) -> tuple[int, str]:
        page = await (await client.get(path)).get_data(as_text=True)
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
        assert token, page
        form = {"csrf_token": token.group(1), "name": name}
        response = await client.post(path, form=form)
        return response.status_code, await response.get_data(as_text=True)

    status, page = await submit("/users", "ada")
    assert (status, page.count("<li>")) == (201, 1)
    status, page = await submit("/users", "ada")
    assert (status, page.count("<li>")) == (200, 1)
    assert "The name is taken." in page
    assert (await submit("/users", ""))[0] == 200
    status, page = await submit("/users/1", "countess")
    assert status == 201
    assert "<li>countess" in page
    assert 'value="countess"' in await (await client.get("/users/1")).get_data(True)
    assert (await client.post("/users", form={"name": "eve"})).status_code == 200


@pytest.mark.parametrize("shared", [True, False])
async def test_validators_run_side_by_side(site: Site, shared: bool) -> None:
    """In tasks, so that each needs a session of its own."""
    db = site.db

    async def ask() -> None:
        if shared:
            await db.session.scalar(select(1))
        else:
            async with db.aio.sessionmaker() as session:
                await session.scalar(select(1))

    class TwoForm(QuartForm):
        one = StringField()
        two = StringField()

        class Meta:
            csrf = False

        async def async_validators_one(self, field: StringField) -> None:
            await ask()

        async def async_validators_two(self, field: StringField) -> None:
            await ask()

    async with site.app.test_request_context(
        "/", method="POST", form={"one": "1", "two": "2"}
    ):
        form = await TwoForm.create_form()
        if shared:
            with pytest.raises(ConcurrentUseError):
                await form.validate_on_submit()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others)  # the first validator goes on
        else:
            assert await form.validate_on_submit()
