"""Quart-Schema: models of each kind from rows and from pages, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import attrs
import msgspec
import pydantic
import pytest
from quart_schema import (
    QuartSchema,
    validate_querystring,
    validate_request,
    validate_response,
)
from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column
from support.apps import Site

pytestmark = pytest.mark.backends("sqlite", "postgresql")


@dataclass
class DataclassNewUser:
    name: str


@dataclass
class DataclassUser:
    id: int
    name: str


@dataclass
class DataclassPage:
    items: list[DataclassUser]
    total: int
    page: int
    pages: int
    has_next: bool


@attrs.define
class AttrsNewUser:
    name: str


@attrs.define
class AttrsUser:
    id: int
    name: str


@attrs.define
class AttrsPage:
    items: list[AttrsUser]
    total: int
    page: int
    pages: int
    has_next: bool


class PydanticNewUser(pydantic.BaseModel):
    name: str


class PydanticUser(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(from_attributes=True)

    id: int
    name: str


class PydanticPage(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(from_attributes=True)

    items: list[PydanticUser]
    total: int
    page: int
    pages: int
    has_next: bool


class MsgspecNewUser(msgspec.Struct):
    name: str


class MsgspecUser(msgspec.Struct):
    id: int
    name: str


class MsgspecPage(msgspec.Struct):
    items: list[MsgspecUser]
    total: int
    page: int
    pages: int
    has_next: bool


@dataclass
class Kind:
    """A library's models, and its way from an object's attributes to one."""

    new: type[Any]
    user: type[Any]
    page: type[Any]
    read: Callable[[Any, type[Any]], Any]


def by_name(source: Any, target: type[Any]) -> Any:
    """What neither dataclasses nor attrs have."""
    names = [
        field.name
        for field in (
            fields if hasattr(target, "__dataclass_fields__") else attrs.fields
        )(target)
    ]
    values = {name: getattr(source, name) for name in names}
    if "items" in values:
        item = DataclassUser if target is DataclassPage else AttrsUser
        values["items"] = [by_name(each, item) for each in values["items"]]
    return target(**values)


def by_pydantic(source: Any, target: type[Any]) -> Any:
    return target.model_validate(source)


def by_msgspec(source: Any, target: type[Any]) -> Any:
    return msgspec.convert(source, target, from_attributes=True)


KINDS = {
    "dataclass": Kind(DataclassNewUser, DataclassUser, DataclassPage, by_name),
    "attrs": Kind(AttrsNewUser, AttrsUser, AttrsPage, by_name),
    "pydantic": Kind(PydanticNewUser, PydanticUser, PydanticPage, by_pydantic),
    "msgspec": Kind(MsgspecNewUser, MsgspecUser, MsgspecPage, by_msgspec),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@dataclass
class Number:
    page: int = 1
    per_page: int = 2


async def test_rows_and_pages(site: Site, kind: Kind) -> None:
    app, db = site.app, site.db
    QuartSchema(app)

    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    @app.post("/users")
    @validate_request(kind.new)
    @validate_response(kind.user, 201)
    async def create(data: Any) -> Any:
        user = User(name=data.name)
        db.session.add(user)
        await db.session.commit()
        return kind.read(user, kind.user), 201

    @app.get("/users/<int:id>")
    @validate_response(kind.user)
    async def show(id: int) -> Any:
        return kind.read(await db.get_or_404(User, id), kind.user)

    @app.get("/columns")
    @validate_response(kind.user)
    async def columns() -> Any:
        row = (await db.session.execute(select(User.id, User.name).limit(1))).one()
        return kind.read(row, kind.user)

    @app.get("/users")
    @validate_querystring(Number)
    @validate_response(kind.page)
    async def users(query_args: Number) -> Any:
        users = select(User).order_by(User.id)
        return kind.read(await db.paginate(users, **asdict(query_args)), kind.page)

    async with site.context():
        await db.create_all()
    client = app.test_client()
    for number, name in enumerate(("ada", "grace", "mary"), 1):
        response = await client.post("/users", json={"name": name})
        assert response.status_code == 201
        assert await response.json == {"id": number, "name": name}
    assert (await client.post("/users", json={"nam": "eve"})).status_code == 400

    ada = {"id": 1, "name": "ada"}
    assert await (await client.get("/users/1")).json == ada
    assert await (await client.get("/columns")).json == ada
    assert (await client.get("/users/4")).status_code == 404
    assert await (await client.get("/users")).json == {
        "items": [ada, {"id": 2, "name": "grace"}],
        "total": 3,
        "page": 1,
        "pages": 2,
        "has_next": True,
    }
    assert await (await client.get("/users?page=2")).json == {
        "items": [{"id": 3, "name": "mary"}],
        "total": 3,
        "page": 2,
        "pages": 2,
        "has_next": False,
    }
    described = await (await client.get("/openapi.json")).json
    assert described["paths"]["/users"]["post"]["responses"]["201"]
