"""What makes a class a model: its base, its table's name, its metadata."""

from __future__ import annotations

import types
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import NotFound

from dualchemy import ConfigError, Model, SQLAlchemy
from dualchemy.models import DefaultMeta
from dualchemy.query import QueryProperty


class Name(str):
    __slots__ = ()


def direct() -> SQLAlchemy:
    class Base(Model):
        pass

    return SQLAlchemy(model_class=Base)


def direct_dataclass() -> SQLAlchemy:
    class Base(orm.MappedAsDataclass, Model):
        pass

    return SQLAlchemy(model_class=Base)


def plain() -> SQLAlchemy:
    return SQLAlchemy()


def plain_class() -> SQLAlchemy:
    class Base:
        pass

    return SQLAlchemy(model_class=Base)


def declarative_base_1x() -> SQLAlchemy:
    return SQLAlchemy(model_class=orm.declarative_base(metaclass=DefaultMeta))


def declarative_base() -> SQLAlchemy:
    class Base(orm.DeclarativeBase):
        pass

    return SQLAlchemy(model_class=Base)


def declarative_base_no_meta() -> SQLAlchemy:
    class Base(orm.DeclarativeBaseNoMeta):
        pass

    return SQLAlchemy(model_class=Base)


def dataclass() -> SQLAlchemy:
    class Base(orm.MappedAsDataclass, orm.DeclarativeBase):
        pass

    return SQLAlchemy(model_class=Base)


def dataclass_no_meta() -> SQLAlchemy:
    class Base(orm.MappedAsDataclass, orm.DeclarativeBaseNoMeta):
        pass

    return SQLAlchemy(model_class=Base)


FORMS = [
    direct,
    direct_dataclass,
    plain,
    plain_class,
    declarative_base_1x,
    declarative_base,
    declarative_base_no_meta,
    dataclass,
    dataclass_no_meta,
]
DATACLASSES = [direct_dataclass, dataclass, dataclass_no_meta]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def db(request: pytest.FixtureRequest) -> SQLAlchemy:
    made: SQLAlchemy = request.param()
    return made


def test_model_has_a_table_named_after_it(db: SQLAlchemy) -> None:
    class BlogPost(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert BlogPost.__tablename__ == "blog_post"
    assert BlogPost.__table__.metadata is db.metadata
    assert db.metadata.tables["blog_post"] is BlogPost.__table__


def test_bind_key_chooses_the_metadata(db: SQLAlchemy) -> None:
    class Report(db.Model):
        __bind_key__ = "reports"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Other(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert Report.metadata is db.metadatas["reports"]
    assert Report.__table__.metadata.info["bind_key"] == "reports"
    assert Other.__table__.metadata.info["bind_key"] is None


def test_bind_key_is_inherited_from_mixins_and_abstract_models(db: SQLAlchemy) -> None:
    class ReportsMixin:
        __bind_key__: ClassVar[str] = "reports"

    class Archived(db.Model):
        __abstract__ = True
        __bind_key__ = "archive"

    class FromMixin(ReportsMixin, db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    class FromAbstract(Archived):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert FromMixin.__table__.metadata is db.metadatas["reports"]
    assert FromAbstract.__table__.metadata is db.metadatas["archive"]


def test_explicit_metadata_wins_over_bind_key(db: SQLAlchemy) -> None:
    own = sa.MetaData()

    class Report(db.Model):
        __bind_key__ = "reports"
        metadata = own
        id: Mapped[int] = mapped_column(primary_key=True)

    assert Report.__table__.metadata is own


def test_single_table_inheritance_uses_the_parents_table(db: SQLAlchemy) -> None:
    class Animal(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True, **no_init(db))
        kind: Mapped[str] = mapped_column(default="")
        __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind"}

    class Duck(Animal):
        __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "duck"}

    assert Duck.__table__ is Animal.__table__
    assert Duck.__tablename__ == "animal"


def test_joined_table_inheritance_has_its_own_table(db: SQLAlchemy) -> None:
    class Animal(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    class Duck(Animal):
        id: Mapped[int] = mapped_column(sa.ForeignKey(Animal.id), primary_key=True)

    assert Duck.__tablename__ == "duck"
    assert Duck.__table__ is not Animal.__table__


def test_abstract_model_has_no_table(db: SQLAlchemy) -> None:
    class Dated(db.Model):
        __abstract__ = True
        year: Mapped[int]

    class Event(Dated):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert not hasattr(Dated, "__tablename__")
    assert set(Event.__table__.c.keys()) == {"id", "year"}


def test_own_name_wins(db: SQLAlchemy) -> None:
    class Named(db.Model):
        __tablename__ = "another"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Child(Named):
        id: Mapped[int] = mapped_column(sa.ForeignKey(Named.id), primary_key=True)

    class Mixin:
        __tablename__ = "from_mixin"

    class Mixed(Mixin, db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    class Computed(db.Model):
        @orm.declared_attr.directive
        def __tablename__(cls) -> str:
            return cls.__name__.upper()

        id: Mapped[int] = mapped_column(primary_key=True)

    assert Named.__tablename__ == "another"
    assert Child.__tablename__ == "child"
    assert Mixed.__tablename__ == "from_mixin"
    assert Computed.__tablename__ == "COMPUTED"


def test_reflected_table_is_taken_by_name(db: SQLAlchemy) -> None:
    sa.Table("old_thing", db.metadata, sa.Column("key", sa.Integer, primary_key=True))

    class OldThing(db.Model):
        pass

    assert "key" in OldThing.__table__.c


def test_missing_primary_key_is_sqlalchemys_error(db: SQLAlchemy) -> None:
    with pytest.raises(
        sa.exc.ArgumentError, match="could not assemble any primary key"
    ):

        class Keyless(db.Model):
            name: Mapped[str]


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("User", "user"),
        ("BlogPost", "blog_post"),
        ("HTTPRequestLog", "http_request_log"),
        ("Point2D", "point2_d"),
        ("MD5Hash", "md5_hash"),
        ("_Private", "private"),
        ("ISO8601Date", "iso8601_date"),
        ("lower", "lower"),
    ],
)
def test_name_rules(class_name: str, name: str) -> None:
    db = SQLAlchemy()
    namespace = {"id": sa.Column(sa.Integer, primary_key=True)}

    model = type(db.Model)(class_name, (db.Model,), namespace)

    assert model.__tablename__ == name


@pytest.mark.parametrize(
    "form",
    [direct, plain, plain_class, declarative_base, declarative_base_no_meta],
    ids=lambda form: form.__name__,
)
def test_repr_shows_key_or_state(form: Any) -> None:
    db = form()

    class User(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    engine = sa.create_engine("sqlite://")
    db.metadata.create_all(engine)
    user = User()
    assert repr(user) == f"<User (transient {id(user)})>"
    with orm.Session(engine) as session:
        session.add(user)
        assert repr(user) == f"<User (pending {id(user)})>"
        session.flush()
        assert repr(user) == "<User 1>"
        session.delete(user)
        session.flush()
        assert repr(user) == "<User 1>"
        session.commit()
        assert repr(user) == "<User 1>"
    orm.make_transient(user)
    assert repr(user) == f"<User (transient {id(user)})>"
    engine.dispose()


@pytest.mark.parametrize("form", DATACLASSES, ids=lambda form: form.__name__)
def test_dataclass_model_has_init_repr_and_eq(form: Any) -> None:
    db = form()

    class Point(db.Model):
        id: Mapped[int] = mapped_column(init=False, primary_key=True)
        x: Mapped[int] = mapped_column(default=0)

    class Child(Point):
        y: Mapped[int] = mapped_column(default=5)

    assert Point(x=3).x == 3
    assert Point(x=3) == Point(x=3)
    assert "x=3" in repr(Point(x=3))
    assert Child(x=1, y=2).y == 2


@pytest.mark.parametrize(
    "bases",
    [
        (),
        (Model,),
        (orm.DeclarativeBase,),
        (orm.DeclarativeBaseNoMeta,),
        (orm.MappedAsDataclass, Model),
    ],
)
def test_disable_autonaming(bases: tuple[type, ...]) -> None:
    base = types.new_class("Base", bases)
    db = SQLAlchemy(model_class=base, disable_autonaming=True)

    with pytest.raises(sa.exc.InvalidRequestError, match="__tablename__"):

        class User(db.Model):
            id: Mapped[int] = mapped_column(primary_key=True)


def no_init(db: SQLAlchemy) -> dict[str, Any]:
    """Arguments that a primary key needs in a dataclass only."""
    return {"init": False} if issubclass(db.Model, orm.MappedAsDataclass) else {}


class TestBase:
    """A direct subclass of ``dualchemy.Model`` is the project's base."""

    def test_is_db_model_itself(self) -> None:
        class Base(Model):
            pass

        assert SQLAlchemy(model_class=Base).Model is Base

    def test_has_registry_and_metadata_of_its_own(self) -> None:
        class One(Model):
            pass

        class Two(Model):
            pass

        assert One.registry is not Two.registry
        assert One.metadata is not Two.metadata

    def test_takes_metadata_registry_and_type_map_as_declarative_base(self) -> None:
        convention = {"pk": "pk_%(table_name)s"}

        class Base(Model):
            metadata = sa.MetaData(naming_convention=convention)
            type_annotation_map: ClassVar[dict[Any, Any]] = {Name: sa.String(42)}

        class Own(Model):
            registry = orm.registry()

        class User(Base):
            __bind_key__ = "users"
            id: Mapped[Name] = mapped_column(primary_key=True)

        assert User.__table__.c.id.type.length == 42  # type: ignore[attr-defined]
        assert User.metadata.naming_convention["pk"] == "pk_%(table_name)s"
        assert Own.metadata is Own.registry.metadata

    def test_registry_and_type_map_together_are_refused(self) -> None:
        with pytest.raises(sa.exc.InvalidRequestError, match="Both has both"):

            class Both(Model):
                registry = orm.registry()
                type_annotation_map: ClassVar[dict[Any, Any]] = {}

    def test_models_may_come_before_db(self) -> None:
        class Base(Model):
            pass

        class Report(Base):
            __bind_key__ = "reports"
            id: Mapped[int] = mapped_column(primary_key=True)

        db = SQLAlchemy(model_class=Base)

        assert db.metadatas["reports"] is Report.metadata

    def test_belongs_to_one_db(self) -> None:
        class Base(Model):
            pass

        SQLAlchemy(model_class=Base)
        with pytest.raises(ConfigError) as caught:
            SQLAlchemy(model_class=Base)

        assert str(caught.value) == (
            "model_class: Base already belongs to another 'SQLAlchemy' instance. Use"
            " that instance, or make a second base."
        )

    def test_a_model_is_no_base(self) -> None:
        class Base(Model):
            pass

        class User(Base):
            id: Mapped[int] = mapped_column(primary_key=True)

        with pytest.raises(ConfigError) as caught:
            SQLAlchemy(model_class=User)

        assert str(caught.value).startswith("model_class: User is a model, not a base.")

    def test_autonaming_cannot_be_disabled_after_the_fact(self) -> None:
        class Base(Model):
            pass

        class User(Base):
            id: Mapped[int] = mapped_column(primary_key=True)

        with pytest.raises(ConfigError, match="models of Base are already defined"):
            SQLAlchemy(model_class=Base, disable_autonaming=True)


def test_two_declarative_bases_are_refused() -> None:
    class One(orm.DeclarativeBase):
        pass

    class Two(orm.DeclarativeBaseNoMeta):
        pass

    class Both(One, Two):
        __abstract__ = True

    with pytest.raises(ValueError, match="Only one declarative base can be passed"):
        SQLAlchemy(model_class=Both)


def test_model_class_must_be_a_class() -> None:
    with pytest.raises(ConfigError) as caught:
        SQLAlchemy(model_class="Base")  # type: ignore[arg-type]

    assert str(caught.value) == "model_class: expected a class, got 'str'."


def test_metadata_argument_is_the_default_metadata() -> None:
    metadata = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s"})

    db = SQLAlchemy(metadata=metadata)

    assert db.metadata is metadata
    assert db.Model.metadata is metadata
    assert db.Table("x", bind_key="reports").metadata.naming_convention["pk"] == (
        "pk_%(table_name)s"
    )


def test_metadata_argument_is_ignored_with_a_2x_base() -> None:
    class Base(orm.DeclarativeBase):
        pass

    with pytest.warns(
        DeprecationWarning, match="set it as an attribute of Base"
    ) as all_:
        db = SQLAlchemy(metadata=sa.MetaData(), model_class=Base)

    assert all_[0].filename == __file__
    assert db.metadata is Base.metadata


class TestTable:
    def test_without_metadata_uses_the_default(self) -> None:
        db = SQLAlchemy()

        table = db.Table("tag", sa.Column("id", sa.Integer, primary_key=True))

        assert table.metadata is db.metadata
        assert table.primary_key.columns.keys() == ["id"]

    def test_bind_key_chooses_the_metadata(self) -> None:
        db = SQLAlchemy()

        table = db.Table("tag", sa.Column("id", sa.Integer), bind_key="reports")

        assert table.metadata is db.metadatas["reports"]

    def test_explicit_metadata_wins(self) -> None:
        metadata = sa.MetaData()

        table = SQLAlchemy().Table("tag", metadata, sa.Column("id", sa.Integer))

        assert table.metadata is metadata

    def test_without_arguments_is_sqlalchemys_error(self) -> None:
        with pytest.raises(TypeError):
            SQLAlchemy().Table()  # type: ignore[call-arg]

    def test_same_name_twice_is_sqlalchemys_error(self) -> None:
        db = SQLAlchemy()
        db.Table("tag", sa.Column("id", sa.Integer))

        with pytest.raises(sa.exc.InvalidRequestError, match="already defined"):
            db.Table("tag", sa.Column("other", sa.Integer))
        assert db.Table("tag", extend_existing=True) is db.metadata.tables["tag"]


def test_short_cuts_to_sqlalchemy() -> None:
    db = SQLAlchemy()

    assert db.Column is sa.Column
    assert db.Mapped is orm.Mapped
    assert db.event is sa.event
    with pytest.raises(
        AttributeError, match="'SQLAlchemy' object has no attribute 'nope'"
    ):
        _ = db.nope
    with pytest.raises(AttributeError):
        _ = db._nope


def test_dynamic_relationships_use_the_query_class() -> None:
    db = SQLAlchemy()

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    class Post(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        user_id = db.Column(db.ForeignKey(User.id))
        author = db.relationship(User, backref=db.backref("posts", lazy="dynamic"))

    orm.configure_mappers()
    assert isinstance(User(id=1).posts, db.Query)


def test_dynamic_loader_uses_the_query_class() -> None:
    db = SQLAlchemy()

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        posts = db.dynamic_loader("Post", backref="author")
        others = db.relation("Post", lazy="dynamic", viewonly=True)

    class Post(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        user_id = db.Column(db.ForeignKey(User.id))

    assert isinstance(User(id=1).posts, db.Query)
    assert isinstance(User(id=1).others, db.Query)


def test_declarative_base_with_explicit_metadata() -> None:
    metadata = sa.MetaData()
    base = orm.declarative_base(metaclass=DefaultMeta)

    db = SQLAlchemy(model_class=base, metadata=metadata)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    assert User.metadata is metadata
    assert isinstance(vars(base)["query"], QueryProperty)


async def test_awaitable_attrs_load_what_is_not_loaded(make_site: Any) -> None:
    site = make_site("quart", SQLALCHEMY_DATABASE_URI="sqlite://")

    class User(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        posts = orm.relationship("Post")

    class Post(site.db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(sa.ForeignKey(User.id))

    async with site.context():
        await site.db.create_all()
        site.db.session.add_all([User(id=1), Post(user_id=1)])
        await site.db.session.commit()
    async with site.context():
        user = await site.db.get_or_404(User, 1)
        assert "posts" not in vars(user)
        assert [post.id for post in await user.awaitable_attrs.posts] == [1]


def test_query_outside_a_context_aborts_as_werkzeug_does() -> None:
    db = SQLAlchemy()

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    engine = sa.create_engine("sqlite://")
    db.metadata.create_all(engine)
    with orm.Session(engine) as session:
        query = db.Query(User, session=session)
        with pytest.raises(NotFound) as caught:
            query.first_or_404("No user.")
    engine.dispose()
    assert caught.value.description == "No user."
