"""Quart-Security: register, log in, roles, change the password, log out."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
import sqlalchemy as sa
from quart_security import (
    RoleMixin,
    Security,
    SQLAlchemyUserDatastore,
    UserMixin,
    auth_required,
    current_user,
    roles_required,
)
from quart_security.state import SecurityState
from sqlalchemy.orm import Mapped, mapped_column, relationship
from support.apps import Site

pytestmark = pytest.mark.backends("sqlite", "postgresql")


async def test_accounts(site: Site) -> None:
    app, db = site.app, site.db
    app.config.update(
        SECURITY_COOKIE_SECURE=False,
        SECURITY_PASSWORD_BREACH_CHECK=False,  # asks a service in the network
        SECURITY_TWO_FACTOR=False,
        SECURITY_WEBAUTHN=False,
        SECURITY_MULTI_FACTOR_RECOVERY_CODES=False,
        SECURITY_ARGON2_MEMORY_COST=64,
        SECURITY_ARGON2_TIME_COST=1,
        SECURITY_POST_LOGIN_VIEW="/me",
    )

    db.Table(
        "user_role",
        sa.Column("user_id", sa.ForeignKey("user.id"), primary_key=True),
        sa.Column("role_id", sa.ForeignKey("role.id"), primary_key=True),
    )

    class Role(RoleMixin, db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(unique=True)

    class User(UserMixin, db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(unique=True)
        password: Mapped[str]
        active: Mapped[bool]
        fs_uniquifier: Mapped[str] = mapped_column(unique=True)
        failed_login_count: Mapped[int | None]
        locked_until: Mapped[datetime | None]
        current_login_at: Mapped[datetime | None]
        last_login_at: Mapped[datetime | None]
        current_login_ip: Mapped[str | None]
        last_login_ip: Mapped[str | None]
        login_count: Mapped[int | None]
        roles: Mapped[list[Role]] = relationship(secondary="user_role")

    users = SQLAlchemyUserDatastore(db, User, Role)
    Security(app, users)

    @app.get("/me")
    @auth_required("session")
    async def me() -> str:
        return f"{current_user.email} {current_user.login_count}"

    @app.get("/admin")
    @roles_required("admin")
    async def admin() -> str:
        return "admin"

    async with site.context():
        await db.create_all()
        async with db.engine.begin() as connection:
            await connection.run_sync(SecurityState.metadata.create_all)

    async with app.test_app() as running:
        client = running.test_client()

        async def submit(path: str, **form: str) -> str:
            page = await (await client.get(path)).get_data(as_text=True)
            token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
            assert token, page
            form["csrf_token"] = token.group(1)
            response = await client.post(path, form=form)
            return f"{response.status_code} {response.headers.get('Location', '')}"

        async def get(path: str) -> str:
            response = await client.get(path)
            text = await response.get_data(as_text=True)
            return text if response.status_code == 200 else str(response.status_code)

        ada = {"email": "ada@example.com", "password": "difference engine"}
        again = {"password_confirm": ada["password"]}
        assert await get("/me") != "ada@example.com 1"
        assert await submit("/register", **ada, **again) == "302 /login"
        wrong = {**ada, "password": "analytical engine"}
        assert await submit("/login", **wrong) == "200 "
        assert await submit("/login", **ada) == "302 /me"
        assert await get("/me") == "ada@example.com 1"

        assert await get("/admin") == "403"
        async with site.context():
            user = await users.find_user(email=ada["email"])
            assert await users.add_role_to_user(user, "admin")
            await users.commit()
        assert await get("/admin") == "admin"

        new = "analytical engine"
        changed = await submit(
            "/change",
            password=ada["password"],
            new_password=new,
            new_password_confirm=new,
        )
        assert changed.startswith("302")
        assert await get("/me") == "ada@example.com 1"

        async with client.session_transaction() as session:
            token = session["_csrf_token"]
        await client.post("/logout", form={"csrf_token": token})
        assert await get("/me") != "ada@example.com 1"
        assert await submit("/login", **ada) == "200 "
        assert await submit("/login", **{**ada, "password": new}) == "302 /me"
        assert await get("/me") == "ada@example.com 2"
