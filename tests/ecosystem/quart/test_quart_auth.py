"""Quart-Auth: log in, load the user from the database, log out."""

from __future__ import annotations

import pytest
from quart import request
from quart_auth import (
    AuthUser,
    QuartAuth,
    Unauthorized,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site
from werkzeug.security import check_password_hash, generate_password_hash

pytestmark = pytest.mark.backends("sqlite", "postgresql")


async def test_log_in_and_out(site: Site) -> None:
    app, db = site.app, site.db
    app.config["QUART_AUTH_COOKIE_SECURE"] = False

    class Account(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(unique=True)
        password: Mapped[str]

    class User(AuthUser):
        async def account(self) -> Account:
            return await db.get_or_404(Account, int(self.auth_id))

    auth = QuartAuth(app)
    auth.user_class = User

    @app.post("/register")
    async def register() -> tuple[str, int]:
        form = await request.form
        password = generate_password_hash(form["password"], "pbkdf2:sha256:10")
        db.session.add(Account(name=form["name"], password=password))
        await db.session.commit()
        return "", 201

    @app.post("/login")
    async def login() -> str:
        form = await request.form
        account = await db.first_or_404(select(Account).filter_by(name=form["name"]))
        if not check_password_hash(account.password, form["password"]):
            raise Unauthorized
        login_user(User(str(account.id)))
        return ""

    @app.post("/rename/<name>")
    @login_required
    async def rename(name: str) -> str:
        (await current_user.account()).name = name
        await db.session.commit()
        return ""

    @app.get("/me")
    @login_required
    async def me() -> str:
        return (await current_user.account()).name

    @app.post("/logout")
    async def logout() -> str:
        logout_user()
        return ""

    async with site.context():
        await db.create_all()
    client = app.test_client()

    async def answer(method: str, path: str, **form: str) -> tuple[int, str]:
        response = await client.open(path, method=method, form=form or None)
        return response.status_code, await response.get_data(as_text=True)

    ada = {"name": "ada", "password": "lovelace"}
    assert (await answer("POST", "/register", **ada))[0] == 201
    assert (await answer("GET", "/me"))[0] == 401
    wrong = {**ada, "password": "byron"}
    assert (await answer("POST", "/login", **wrong))[0] == 401
    assert (await answer("POST", "/login", name="grace", password=""))[0] == 404
    assert await answer("POST", "/login", **ada) == (200, "")
    assert await answer("GET", "/me") == (200, "ada")
    assert await answer("POST", "/rename/countess") == (200, "")
    assert await answer("GET", "/me") == (200, "countess")
    await answer("POST", "/logout")
    assert (await answer("GET", "/me"))[0] == 401
