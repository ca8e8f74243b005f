"""The same programs under Flask-SQLAlchemy 3.1 and under Dualchemy print the same.

Each program is written as Flask-SQLAlchemy's documentation writes it. ``lib`` holds the
names it would import, ``app`` is a configured Flask app, and ``show`` prints.

Flask-SQLAlchemy 3.1 does not work on SQLAlchemy 2.1, so this runs on 2.0.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import orm
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import HTTPException

import dualchemy.flask

SQLALCHEMY_2_1 = tuple(map(int, sa.__version__.split(".")[:2])) >= (2, 1)
pytestmark = pytest.mark.skipif(
    SQLALCHEMY_2_1, reason="Flask-SQLAlchemy 3.1 does not work on SQLAlchemy 2.1"
)

Program = Callable[[Any, Flask, Callable[..., None]], None]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


def flask_sqlalchemy_names() -> SimpleNamespace:
    import flask_sqlalchemy.model
    import flask_sqlalchemy.pagination
    import flask_sqlalchemy.query
    import flask_sqlalchemy.record_queries
    import flask_sqlalchemy.session
    import flask_sqlalchemy.track_modifications as track

    return SimpleNamespace(
        SQLAlchemy=flask_sqlalchemy.SQLAlchemy,
        Model=flask_sqlalchemy.model.Model,
        DefaultMeta=flask_sqlalchemy.model.DefaultMeta,
        DefaultMetaNoName=flask_sqlalchemy.model.DefaultMetaNoName,
        Query=flask_sqlalchemy.query.Query,
        Pagination=flask_sqlalchemy.pagination.Pagination,
        SelectPagination=flask_sqlalchemy.pagination.SelectPagination,
        QueryPagination=flask_sqlalchemy.pagination.QueryPagination,
        Session=flask_sqlalchemy.session.Session,
        get_recorded_queries=flask_sqlalchemy.record_queries.get_recorded_queries,
        models_committed=track.models_committed,
        before_models_committed=track.before_models_committed,
    )


def run(program: Program, lib: Any, folder: Path) -> list[str]:
    """Run a program, and return what it shows."""
    shown: list[str] = []

    def show(*values: object) -> None:
        text = " ".join(map(str, values)).replace(str(folder), "FOLDER")
        shown.append(re.sub(r"\b(0x[0-9a-f]+|\d{9,})\b", "ADDRESS", text))

    app = Flask(__name__, instance_path=str(folder / "instance"))
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    with warnings.catch_warnings():
        # Flask-SQLAlchemy leaves its connections to the garbage collector, and its
        # query interface uses what SQLAlchemy calls legacy.
        warnings.simplefilter("ignore")
        program(lib, app, show)
        db = app.extensions["sqlalchemy"]
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()
    return shown


KINDS = (RuntimeError, ValueError, sa.exc.InvalidRequestError, sa.exc.ArgumentError)
KINDS += (TypeError, AttributeError)


def error_of(call: Callable[[], Any], *kinds: type[Exception]) -> str:
    """Which of the kinds that Flask-SQLAlchemy's users may catch an exception is."""
    try:
        call()
    except HTTPException as error:
        return f"{type(error).__name__} {error.code}"
    except Exception as error:
        found = [kind.__name__ for kind in kinds or KINDS if isinstance(error, kind)]
        return " ".join(found) or f"none of the kinds, but {type(error).__name__}"
    return "no error"


@program
def quick_start(lib: Any, app: Flask, show: Any) -> None:
    db = lib.SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String, unique=True, nullable=False)
        email = db.Column(db.String)

    with app.app_context():
        db.create_all()
        user = User(username="ada", email="ada@example.com")
        show(re.sub(r"\d+", "ID", repr(user)))
        db.session.add(user)
        show(re.sub(r"\d+", "ID", repr(user)))
        db.session.commit()
        show(user, user.id)
        show(
            db.session.execute(db.select(User).order_by(User.username)).scalars().all()
        )
        show(db.get_or_404(User, 1), error_of(lambda: db.get_or_404(User, 2)))
        show(db.one_or_404(db.select(User).filter_by(username="ada")))
        show(error_of(lambda: db.one_or_404(db.select(User).filter_by(username="x"))))
        show(error_of(lambda: db.first_or_404(db.select(User).filter_by(id=9))))
        db.session.delete(user)
        db.session.commit()
        show(User.query.count())


@program
def naming(lib: Any, app: Flask, show: Any) -> None:
    db = lib.SQLAlchemy(app)

    class Mixin:
        __tablename__ = "from_mixin"

    class Base(db.Model):
        __abstract__ = True

    class Computed(db.Model):
        id = db.Column(db.Integer, primary_key=True)

        @orm.declared_attr
        def __tablename__(cls):
            return cls.__name__.upper()

    class FromMixin(Mixin, db.Model):
        id = db.Column(db.Integer, primary_key=True)

    class FromBase(Base):
        id = db.Column(db.Integer, primary_key=True)

    class Joined(FromBase):
        id = db.Column(db.ForeignKey(FromBase.id), primary_key=True)

    class Single(FromBase):
        extra = db.Column(db.Integer)

    class WithTable(db.Model):
        __table__ = db.Table("given", db.Column("id", db.Integer, primary_key=True))

    for model in (Computed, FromMixin, FromBase, Joined, Single, WithTable):
        show(
            model.__name__, model.__table__.name, getattr(model, "__tablename__", None)
        )
    for name in (
        "HTTPRequestLog",
        "MD5Hash",
        "Point2D",
        "_Hidden",
        "ABC",
        "snake_Case",
    ):
        model = type(name, (db.Model,), {"id": db.Column(db.Integer, primary_key=True)})
        show(name, model.__tablename__)


@program
def model_classes(lib: Any, app: Flask, show: Any) -> None:
    class Custom(lib.Model):
        @orm.declared_attr
        def id(cls):
            return sa.Column(sa.Integer, primary_key=True)

    class New(orm.DeclarativeBase):
        metadata = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s"})

    class NoMeta(orm.DeclarativeBaseNoMeta):
        pass

    class Data(orm.MappedAsDataclass, orm.DeclarativeBase):
        pass

    class DataNoMeta(orm.MappedAsDataclass, orm.DeclarativeBaseNoMeta):
        pass

    class Two(New, NoMeta):
        __abstract__ = True

    old = orm.declarative_base(metaclass=lib.DefaultMeta)
    for base in (Custom, New, NoMeta, Data, DataNoMeta, old):
        db = lib.SQLAlchemy(model_class=base)

        class User(db.Model):
            if base is not Custom:
                id: Mapped[int] = mapped_column(primary_key=True)

        class Report(db.Model):
            __bind_key__ = "reports"
            if base is not Custom:
                id: Mapped[int] = mapped_column(primary_key=True)

        show(
            User.__tablename__,
            User.metadata is db.metadata,
            hasattr(User, "query_class"),
        )
        show(Report.metadata is db.metadatas["reports"], sorted(map(str, db.metadatas)))
        show(db.metadatas["reports"].naming_convention == db.metadata.naming_convention)
        show(repr(User(id=1)).replace("<locals>.", "")[-12:] if base is Data else "")
    show(error_of(lambda: lib.SQLAlchemy(model_class=Two)))
    lib.SQLAlchemy(app)


@program
def disabled_autonaming(lib: Any, app: Flask, show: Any) -> None:
    class New(orm.DeclarativeBase):
        pass

    for options in ({}, {"model_class": New}):
        db = lib.SQLAlchemy(disable_autonaming=True, **options)
        body = {"id": sa.Column(sa.Integer, primary_key=True)}
        show(
            error_of(lambda db=db, body=body: type(db.Model)("User", (db.Model,), body))
        )
    show(issubclass(type(lib.SQLAlchemy().Model), lib.DefaultMeta))
    show(type(lib.SQLAlchemy(disable_autonaming=True).Model) is lib.DefaultMetaNoName)
    lib.SQLAlchemy(app)


@program
def metadata_and_tables(lib: Any, app: Flask, show: Any) -> None:
    metadata = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s"})
    db = lib.SQLAlchemy(app, metadata=metadata)
    tag = db.Table("tag", sa.Column("id", sa.Integer, primary_key=True))
    other = db.Table("other", sa.Column("id", sa.Integer), bind_key="other")
    own = db.Table("own", sa.MetaData(), sa.Column("id", sa.Integer))
    show(tag.metadata is metadata, tag.primary_key.name, type(tag) is db.Table)
    show(
        other.metadata is db.metadatas["other"], other.metadata.naming_convention["pk"]
    )
    show(own.metadata in db.metadatas.values(), metadata.info, other.metadata.info)
    show(
        error_of(lambda: db.Table()), error_of(lambda: db.Table("tag", sa.Column("x")))
    )
    show(
        db.Column is sa.Column,
        db.relationship is orm.relationship,
        db.event is sa.event,
    )
    show(error_of(lambda: db.not_there), hasattr(db, "_private"))


@program
def binds(lib: Any, app: Flask, show: Any) -> None:
    app.config["SQLALCHEMY_BINDS"] = {"a": "sqlite://", "b": {"url": "sqlite:///b.db"}}
    db = lib.SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    class A(db.Model):
        __bind_key__ = "a"
        id = db.Column(db.Integer, primary_key=True)

    class ChildOfA(A):
        __bind_key__ = "a"
        id = db.Column(db.ForeignKey(A.id), primary_key=True)

    class Lost(db.Model):
        __bind_key__ = "lost"
        id = db.Column(db.Integer, primary_key=True)

    b = db.Table("b", db.Column("id", db.Integer, primary_key=True), bind_key="b")
    with app.app_context():
        show(sorted(map(str, db.engines)), db.engine is db.engines[None])
        for key, engine in sorted(db.engines.items(), key=str):
            show(key, engine.url, type(engine.pool).__name__)
        unbound = sa.exc.UnboundExecutionError
        show(error_of(lambda: db.engines["nope"], KeyError))
        show(error_of(lambda: db.create_all("nope"), unbound))
        show(error_of(lambda: db.create_all(), unbound))
        db.create_all(["a", None])
        db.create_all(bind_key="b")
        for key in (None, "a", "b"):
            show(key, sorted(sa.inspect(db.engines[key]).get_table_names()))
        db.session.add_all([User(id=1), A(id=2), ChildOfA(id=3)])
        db.session.execute(b.insert().values(id=4))
        db.session.commit()
        show(A.query.count(), db.session.get(ChildOfA, 3), db.session.get(User, 1))
        db.session.execute(b.update().values(id=5))
        db.session.execute(sa.update(A).where(A.id == 2).values(id=6))
        db.session.commit()
        show(error_of(lambda: db.session.get(Lost, 1), unbound))
        session = db.session()
        show(session.get_bind(A).url, session.get_bind(clause=b).url)
        show(
            session.get_bind(mapper=User) is db.engine, session.get_bind() is db.engine
        )
        show(error_of(lambda: session.get_bind(int)))
        show(session.get_bind(bind=db.engines["b"]) is db.engines["b"])
        db.drop_all("b")
        show(sa.inspect(db.engines["b"]).get_table_names())
        db.metadatas["a"].clear()
        db.reflect("a")
        show(sorted(db.metadatas["a"].tables))


@program
def configuration(lib: Any, app: Flask, show: Any) -> None:
    def engine_of(**config: Any) -> Any:
        other = Flask(__name__, instance_path=app.instance_path)
        other.config.update(config)
        options = config.pop("constructor", {})
        db = lib.SQLAlchemy(other, engine_options=options)
        with other.app_context():
            return db.engines.get(None) or next(iter(db.engines.values()))

    uri = "SQLALCHEMY_DATABASE_URI"
    for url in (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///app.db",
        "sqlite:////absolute.db",
        "sqlite:///file:app.db?uri=true",
        sa.URL.create("sqlite", database="app.db"),
        "mysql+pymysql://me@db/shop",
        "mysql+pymysql://me@db/shop?charset=latin1",
    ):
        engine = engine_of(**{uri: url})
        show(engine.url, type(engine.pool).__name__, engine.pool._recycle, engine.echo)
    options = {"pool_pre_ping": True, "echo": True}
    engine = engine_of(**{uri: "sqlite:///a.db", "SQLALCHEMY_ENGINE_OPTIONS": options})
    show(engine.pool._pre_ping, engine.echo)
    engine = engine_of(**{uri: "sqlite:///a.db", "constructor": {"label_length": 9}})
    show(engine.dialect.label_length)
    engine = engine_of(**{uri: "sqlite:///a.db", "SQLALCHEMY_ECHO": True})
    show(engine.echo)
    engine = engine_of(SQLALCHEMY_BINDS={None: "sqlite:///only.db"})
    show(engine.url)
    engine = engine_of(SQLALCHEMY_BINDS={"a": {"url": "sqlite:///a.db", "echo": True}})
    show(engine.url, engine.echo)
    show(error_of(lambda: engine_of()), (app.instance_path and "instance"))
    db = lib.SQLAlchemy(app)
    show(error_of(lambda: db.init_app(app)), app.extensions["sqlalchemy"] is db)
    show(sorted(k for k in app.config if k.startswith("SQLALCHEMY")))
    show(app.config["SQLALCHEMY_ENGINE_OPTIONS"], app.config["SQLALCHEMY_BINDS"])


@program
def contexts_and_sessions(lib: Any, app: Flask, show: Any) -> None:
    db = lib.SQLAlchemy(app, session_options={"expire_on_commit": False})
    show(isinstance(db.session, orm.scoped_session), repr(db))
    show(error_of(lambda: db.session.connection()), error_of(lambda: db.engine))
    with app.app_context():
        first = db.session()
        show(
            isinstance(first, lib.Session),
            first.expire_on_commit,
            db.session() is first,
        )
        show(db.session.registry.has(), repr(db))
        with app.app_context():
            show(db.session() is first)
        db.session.remove()
        show(db.session.registry.has(), db.session() is first)
    heard = []
    sa.event.listen(db.session, "after_commit", lambda session: heard.append("heard"))
    with app.test_request_context():
        db.session.execute(sa.text("SELECT 1"))
        db.session.commit()
    show(heard)

    class MySession(lib.Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            heard.append("get_bind")
            return super().get_bind(*args, **kwargs)

    other = Flask(__name__)
    other.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = lib.SQLAlchemy(other, session_options={"class_": MySession})
    with other.app_context():
        db.session.execute(sa.text("SELECT 1"))
        show(isinstance(db.session(), MySession), heard[-1])
    db = lib.SQLAlchemy(session_options={"scopefunc": lambda: 5})
    third = Flask(__name__)
    third.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(third)
    with third.app_context():
        show(list(db.session.registry.registry), db.session(), db.session.registry)
        one = db.session()
        with third.app_context():
            show(db.session() is one)


@program
def legacy_queries(lib: Any, app: Flask, show: Any) -> None:
    class MyQuery(lib.Query):
        def answer(self) -> int:
            return 42

    db = lib.SQLAlchemy(app, query_class=MyQuery)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        posts = db.relationship("Post", backref="author", lazy="dynamic")

    class Post(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        user_id = db.Column(db.ForeignKey(User.id))

    class Tag(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        user_id = db.Column(db.ForeignKey(User.id))
        user = db.relationship(User, backref=db.backref("tags", lazy="dynamic"))

    class Special(db.Model):
        class query_class(lib.Query):  # noqa: N801 - Flask-SQLAlchemy's name
            def question(self) -> str:
                return "?"

        id = db.Column(db.Integer, primary_key=True)

    show(db.Query is MyQuery, error_of(lambda: User.query))
    with app.app_context():
        db.create_all()
        db.session.add(User(id=1, posts=[Post(id=n) for n in range(1, 8)]))
        db.session.commit()
        user = User.query.get_or_404(1)
        show(Special.query.question(), hasattr(Special.query, "answer"))
        show(User.query.answer(), user.posts.answer(), db.session.query(User).answer())
        show(user.posts.count(), user.posts.order_by(Post.id).first_or_404())
        show(
            error_of(lambda: user.posts.one_or_404()), user.posts.filter_by(id=3).one()
        )
        show(error_of(lambda: User.query.get_or_404(9)), User.query.first_or_404())
        page = user.posts.order_by(Post.id).paginate(page=2, per_page=3)
        show(isinstance(page, lib.QueryPagination), page.items, page.total, page.pages)
        show(page.next().items, page.prev().items, page.has_next, page.has_prev)
        show(user.tags.answer(), user.tags.paginate().total)


@program
def pagination(lib: Any, app: Flask, show: Any) -> None:
    db = lib.SQLAlchemy(app)

    class Todo(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    statement = db.select(Todo).order_by(Todo.id)
    with app.app_context():
        db.create_all()
        db.session.add_all([Todo() for _ in range(250)])
        db.session.commit()
        for options in (
            {},
            {"page": 2},
            {"page": 13, "per_page": 20},
            {"page": 25, "per_page": 10},
            {"page": 3, "per_page": 1000, "max_per_page": 50},
            {"page": 99, "error_out": False},
            {"page": 0, "error_out": False},
            {"per_page": 0, "error_out": False},
            {"count": False},
        ):
            page = db.paginate(statement, **options)
            show(
                options,
                isinstance(page, lib.SelectPagination),
                page.page,
                page.per_page,
            )
            # Ours also knows what comes next if nothing was counted.
            following = (page.has_next, page.next_num) if page.total else ""
            show(page.total, page.pages, page.first, page.last, following)
            show(page.has_prev, page.prev_num, len(list(page)))
            show(list(page.iter_pages()) if page.page <= page.pages else "")
            show(list(page.iter_pages(left_edge=1, right_edge=0, left_current=1)))
        for bad in ({"page": 0}, {"page": 99}, {"per_page": 0}, {"page": -1}):
            show(bad, error_of(lambda bad=bad: db.paginate(statement, **bad)))
        page = db.paginate(statement, page=12)
        show(page.next().items[0], page.prev().items[0], page.next().total)
        show(error_of(lambda: page.next().next(error_out=True)))
        show(page.next().next().items)
    for query in (
        "page=2",
        "page=2&per_page=5",
        "page=x",
        "page=0",
        "per_page=-1",
        "page=",
    ):
        with app.test_request_context(f"/?{query}"):
            show(query, error_of(lambda: db.paginate(statement)))
            page = db.paginate(statement, error_out=False)
            show(page.page, page.per_page, len(page.items))


@program
def signals(lib: Any, app: Flask, show: Any) -> None:
    app.config["SQLALCHEMY_TRACK_MODIFICATIONS"] = True
    db = lib.SQLAlchemy(app)

    class Todo(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        title = db.Column(db.String)

    for name, signal in (
        ("before", lib.before_models_committed),
        ("after", lib.models_committed),
    ):

        def hear(sender: Any, changes: Any, name: str = name) -> None:
            show(name, sender.name, [(type(m).__name__, op) for m, op in changes])

        signal.connect(hear, app, weak=False)
    with app.app_context():
        db.create_all()
        todo = Todo(title="a")
        db.session.add(todo)
        db.session.flush()
        db.session.commit()
        todo.title = "b"
        db.session.commit()
        db.session.add(Todo())
        db.session.rollback()
        db.session.commit()
        db.session.delete(todo)
        db.session.commit()


@program
def recorded_queries(lib: Any, app: Flask, show: Any) -> None:
    app.config["SQLALCHEMY_RECORD_QUERIES"] = True
    db = lib.SQLAlchemy(app)
    with app.app_context():
        show(lib.get_recorded_queries())
        db.session.execute(sa.text("SELECT :x"), {"x": 5})
        (query,) = lib.get_recorded_queries()
        show(query.statement, query.parameters, query.duration > 0)
        show(query.end_time - query.start_time == query.duration)
        show(re.sub(r":\d+", "", query.location).rsplit("/", 1)[-1])


@program
def shell(lib: Any, app: Flask, show: Any) -> None:
    db = lib.SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)

    with app.app_context():
        names = app.make_shell_context()
        show(sorted(names), names["db"] is db, names["User"] is User)


@program
def several_apps(lib: Any, app: Flask, show: Any) -> None:
    db = lib.SQLAlchemy(app)
    other, third = Flask("other"), Flask("third")
    other.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:////other.db"
    db.init_app(other)
    with app.app_context():
        first = db.engine
    with other.app_context():
        show(db.engine is first, db.engine.url)
    with third.app_context():
        show(error_of(lambda: db.engine), error_of(lambda: db.session.connection()))
        show(error_of(lambda: db.get_engine()))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_prints_the_same(program: Program, tmp_path: Path) -> None:
    names = flask_sqlalchemy_names()
    theirs = run(program, names, tmp_path)
    ours = run(program, dualchemy.flask, tmp_path)

    assert ours == theirs
    assert theirs


def test_every_name_has_a_counterpart() -> None:
    assert set(vars(flask_sqlalchemy_names())) == set(dualchemy.flask.__all__)
