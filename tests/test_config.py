"""What ``init_app`` makes of an app's config, and what it says of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from quart import Quart
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from dualchemy import ConfigError, DualchemyError, SQLAlchemy


class SizedPool(NullPool):
    def __init__(self, creator: Any, shelves: int = 0, **kwargs: Any) -> None:
        super().__init__(creator, **kwargs)


def init(tmp_path: Path, config: dict[str, object], **arguments: object) -> SQLAlchemy:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config.update(config)
    return SQLAlchemy(app, **arguments)  # type: ignore[arg-type]


def uri(value: object) -> dict[str, object]:
    return {"SQLALCHEMY_DATABASE_URI": value}


def binds(**value: object) -> dict[str, object]:
    return {"SQLALCHEMY_BINDS": value}


def options(**value: object) -> dict[str, object]:
    return {**uri("sqlite://"), "SQLALCHEMY_ENGINE_OPTIONS": value}


MISTAKES = {
    "no url": (
        {},
        "Either 'SQLALCHEMY_DATABASE_URI' or 'SQLALCHEMY_BINDS' must be set before"
        " init_app is called, for example"
        ' app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///app.db".',
    ),
    "misspelled key": (
        {"SQLALCHEMY_DATABASE_URL": "sqlite://"},
        "The config has 'SQLALCHEMY_DATABASE_URL'; is it misspelled?",
    ),
    "not a url": (
        uri("just text"),
        "SQLALCHEMY_DATABASE_URI: 'just text' is not a database URL. Write it as"
        " dialect://user:password@host:port/database",
    ),
    "bad port": (
        uri("postgresql://me:s3cret@db:port/shop"),
        "SQLALCHEMY_DATABASE_URI: 'postgresql:***@db:port/shop' is not a database URL.",
    ),
    "one slash": (
        uri("postgresql:/me:s3cret@db/shop"),
        "SQLALCHEMY_DATABASE_URI: 'postgresql:***@db/shop' is not a database URL.",
    ),
    "unknown dialect": (
        uri("postgrs://me:s3cret@db/shop"),
        "SQLALCHEMY_DATABASE_URI: SQLAlchemy has no dialect 'postgrs'. Check the part"
        " before '://'",
    ),
    "unknown driver": (
        uri("postgresql+asyncpgg://me:s3cret@db/shop"),
        "SQLALCHEMY_DATABASE_URI: SQLAlchemy has no dialect 'postgresql+asyncpgg'.",
    ),
    "url of a wrong type": (
        uri(5432),
        "SQLALCHEMY_DATABASE_URI: expected a database URL, got an int.",
    ),
    "url dict, unknown part": (
        uri({"drivername": "sqlite", "user": "me", "password": "s3cret"}),
        "SQLALCHEMY_DATABASE_URI: unknown part 'user'. A URL has drivername, username,"
        " password, host, port, database, query. Did you mean 'username'?",
    ),
    "url dict, no drivername": (
        uri({"host": "db"}),
        "SQLALCHEMY_DATABASE_URI: the part 'drivername' is missing",
    ),
    "url dict, bad part": (
        uri({"drivername": "postgresql", "host": 5}),
        "SQLALCHEMY_DATABASE_URI: ",
    ),
    "binds are no dict": (
        {"SQLALCHEMY_BINDS": "sqlite://"},
        "SQLALCHEMY_BINDS: expected a dict, got a str.",
    ),
    "bind key": (
        {"SQLALCHEMY_BINDS": {5: "sqlite://"}},
        "SQLALCHEMY_BINDS: the bind key 5 is an int. Bind keys are strings, or None for"
        " the default bind.",
    ),
    "bind of a wrong type": (
        binds(reports=["sqlite://"]),
        'SQLALCHEMY_BINDS["reports"]: expected a URL or a dict of engine options with'
        " the key 'url', got a list.",
    ),
    "bind without url": (
        binds(reports={"pool_size": 5}),
        "SQLALCHEMY_BINDS[\"reports\"]: the key 'url' is missing.",
    ),
    "bind, bad url": (
        binds(reports={"url": "postgresql:/me:s3cret@db/shop"}),
        'SQLALCHEMY_BINDS["reports"]["url"]: \'postgresql:***@db/shop\' is not',
    ),
    "bind, bad override url": (
        binds(reports={"url": "sqlite://", "async": {"url": "nonsense"}}),
        'SQLALCHEMY_BINDS["reports"]["async"]["url"]: \'nonsense\' is not',
    ),
    "bind, unknown option": (
        binds(reports={"url": "sqlite://", "pool_sise": 5}),
        "SQLALCHEMY_BINDS[\"reports\"]: unknown engine option 'pool_sise' for 'sqlite'."
        " Did you mean 'pool_size'?",
    ),
    "bind, unknown override option": (
        binds(reports={"url": "sqlite://", "sync": {"eco": True}}),
        'SQLALCHEMY_BINDS["reports"]["sync"]: unknown engine option \'eco\'',
    ),
    "override of a wrong type": (
        binds(reports={"url": "sqlite://", "async": "sqlite+aiosqlite://"}),
        'SQLALCHEMY_BINDS["reports"]["async"]: expected a dict, got a str.',
    ),
    "unknown option": (
        options(pool_pre_pin=True),
        "SQLALCHEMY_ENGINE_OPTIONS: unknown engine option 'pool_pre_pin' for 'sqlite'."
        " Did you mean 'pool_pre_ping'? Options are those of"
        " sqlalchemy.create_engine(); what goes to the driver belongs into"
        " 'connect_args'.",
    ),
    "options are no dict": (
        {**uri("sqlite://"), "SQLALCHEMY_ENGINE_OPTIONS": ["echo"]},
        "SQLALCHEMY_ENGINE_OPTIONS: expected a dict, got a list.",
    ),
    "connect_args": (
        options(connect_args="timeout=5"),
        'SQLALCHEMY_ENGINE_OPTIONS["connect_args"]: expected a dict, got a str.',
    ),
    "pool_ping_after": (
        options(pool_ping_after="soon"),
        'SQLALCHEMY_ENGINE_OPTIONS["pool_ping_after"]: expected a number of seconds, or'
        " None for never, got 'soon'.",
    ),
    "negative pool_ping_after": (
        binds(reports={"url": "mysql://db/a", "async": {"pool_ping_after": -1}}),
        'SQLALCHEMY_BINDS["reports"]["pool_ping_after"]: expected a number of seconds',
    ),
    "poolclass": (
        binds(reports={"url": "mysql://db/shop", "poolclass": "NullPool"}),
        'SQLALCHEMY_BINDS["reports"]["poolclass"]: expected a class of sqlalchemy.pool,'
        " got a str.",
    ),
    "echo of a bind": (
        binds(reports={"url": "sqlite://", "sync": {"echo": "maybe"}}),
        'SQLALCHEMY_BINDS["reports"]["sync"]["echo"]: expected True, False or'
        " 'debug', got 'maybe'.",
    ),
    "echo": (
        {**uri("sqlite://"), "SQLALCHEMY_ECHO": "yes"},
        "SQLALCHEMY_ECHO: expected True, False or 'debug', got 'yes'.",
    ),
    "unknown pragma": (
        options(pragmas={"jornal_mode": "wal"}),
        "SQLALCHEMY_ENGINE_OPTIONS[\"pragmas\"]: SQLite has no pragma 'jornal_mode'. Did"
        " you mean 'journal_mode'?",
    ),
    "pragma value": (
        options(pragmas={"journal_mode": "wal; DROP TABLE user"}),
        'SQLALCHEMY_ENGINE_OPTIONS["pragmas"]["journal_mode"]: expected a word, a number'
        " or a bool, got 'wal; DROP TABLE user'.",
    ),
    "pragmas on a server": (
        binds(reports={"url": "postgresql://db/shop", "pragmas": {"foreign_keys": 1}}),
        'SQLALCHEMY_BINDS["reports"]["pragmas"]: pragmas are SQLite\'s, and the bind is'
        " 'postgresql'.",
    ),
}


@pytest.mark.parametrize(("config", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_in_config_names_key_value_and_remedy(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        init(tmp_path, config)

    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert isinstance(caught.value, DualchemyError)
    assert isinstance(caught.value, RuntimeError)  # as Flask-SQLAlchemy raises


def test_password_in_query_is_hidden(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        init(tmp_path, uri("db?sslpassword=s3cret&sslmode=require"))

    assert "s3cret" not in str(caught.value)
    assert "sslmode=require" in str(caught.value)


def test_mistake_leaves_the_app_free_for_another_try(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    db = SQLAlchemy()
    with pytest.raises(ConfigError):
        db.init_app(app)

    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db.init_app(app)

    assert app.extensions["sqlalchemy"] is db


@pytest.mark.parametrize("make_app", [Flask, Quart])
def test_second_instance_on_an_app_is_refused(make_app: type[Flask | Quart]) -> None:
    app = make_app("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    db = SQLAlchemy(app)

    for again in (db, SQLAlchemy()):
        with pytest.raises(RuntimeError) as caught:
            again.init_app(app)
        assert str(caught.value) == (
            "A 'SQLAlchemy' instance has already been registered on this"
            f" {make_app.__name__} app 'shop'. Import and use that instance instead."
        )


def test_init_app_refuses_what_is_no_app() -> None:
    with pytest.raises(TypeError) as caught:
        SQLAlchemy().init_app("shop")  # type: ignore[arg-type]

    assert str(caught.value) == (
        "init_app: expected a Flask or Quart application, got 'str'."
    )


def test_missing_keys_are_set_to_their_defaults(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"

    SQLAlchemy(app)

    found = {key: app.config[key] for key in app.config if key.startswith("SQLALCHEMY")}
    assert found == {
        "SQLALCHEMY_DATABASE_URI": "sqlite://",
        "SQLALCHEMY_ENGINE_OPTIONS": {},
        "SQLALCHEMY_BINDS": {},
        "SQLALCHEMY_ECHO": False,
        "SQLALCHEMY_RECORD_QUERIES": False,
        "SQLALCHEMY_TRACK_MODIFICATIONS": False,
    }


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///shop.db",
        URL.create("sqlite", database="shop.db"),
        {"drivername": "sqlite", "database": "shop.db"},
        "sqlite:///file:shop.db?uri=true",
    ],
    ids=["text", "URL", "dict", "SQLite's own URI"],
)
def test_relative_sqlite_path_is_in_the_instance_folder(
    tmp_path: Path, url: object
) -> None:
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db = SQLAlchemy(app)

    with app.app_context(), db.sync.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE thing (id INTEGER)")

    assert (tmp_path / "instance" / "shop.db").stat().st_size > 0


def test_absolute_sqlite_path_makes_no_instance_folder(tmp_path: Path) -> None:
    init(tmp_path, uri(f"sqlite:///{tmp_path / 'shop.db'}"))

    assert not (tmp_path / "instance").exists()


@pytest.mark.parametrize("api", ["sync", "async"])
def test_override_wins_for_its_api_only(tmp_path: Path, api: str) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_BINDS"] = {
        None: {
            "url": "sqlite://",
            "pool_size": 7,
            "poolclass": None,
            api: {"echo": True},
        }
    }
    db = SQLAlchemy(app)
    registration = app.extensions["dualchemy"]

    echo = {a: o["echo"] for a, o in registration.config.binds[None].options.items()}

    assert db is registration.db
    assert echo == {"sync": api == "sync", "async": api == "async"}


def test_precedence_of_engine_options(tmp_path: Path) -> None:
    """The constructor is the default for all binds, ``SQLALCHEMY_ENGINE_OPTIONS`` is
    for the default bind, a bind's dict for itself.
    """
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///a.db"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"label_length": 20}
    app.config["SQLALCHEMY_BINDS"] = {
        "plain": "sqlite:///b.db",
        "own": {"url": "sqlite:///c.db", "label_length": 30},
    }
    db = SQLAlchemy(app, engine_options={"label_length": 10, "poolclass": NullPool})

    with app.app_context():
        lengths = {key: e.dialect.label_length for key, e in db.sync.engines.items()}
        pools = {type(e.pool) for e in db.sync.engines.values()}

    assert lengths == {None: 20, "plain": 10, "own": 30}
    assert pools == {NullPool}


def test_echo_is_the_default_of_every_engine(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_ECHO"] = True
    app.config["SQLALCHEMY_BINDS"] = {
        None: "sqlite:///a.db",
        "quiet": {"url": "sqlite:///b.db", "echo": False},
    }
    db = SQLAlchemy(app)

    with app.app_context():
        echo = {key: each.echo for key, each in db.sync.engines.items()}

    assert echo == {None: True, "quiet": False}


def test_none_is_the_same_as_not_set(tmp_path: Path) -> None:
    init(
        tmp_path,
        {**uri("sqlite://"), "SQLALCHEMY_BINDS": None, "SQLALCHEMY_ECHO": None},
    )


def test_config_is_not_changed_by_reading_it(tmp_path: Path) -> None:
    bind = {"url": "sqlite://", "async": {"echo": True}, "pragmas": {"foreign_keys": 1}}
    config = {"SQLALCHEMY_BINDS": {"reports": bind}}

    init(tmp_path, config)

    assert bind == {
        "url": "sqlite://",
        "async": {"echo": True},
        "pragmas": {"foreign_keys": 1},
    }


def test_session_class_must_be_ours() -> None:
    with pytest.raises(ConfigError) as caught:
        SQLAlchemy(session_options={"class_": dict})

    assert str(caught.value) == (
        "session_options['class_']: expected a subclass of 'dualchemy.Session', got"
        " <class 'dict'>. The async API proxies an instance of the same class."
    )


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("sqlite://", {"native_datetime": True}),  # the dialect's
        ("sqlite:///a.db", {"poolclass": SizedPool, "shelves": 3}),  # the pool's
        ("sqlite:///a.db?plugin=some_plugin", {"some_option": 1}),  # a plug-in's
    ],
)
def test_options_of_dialects_pools_and_plug_ins_are_known(
    tmp_path: Path, url: str, accepted: dict[str, object]
) -> None:
    init(tmp_path, {**uri(url), "SQLALCHEMY_ENGINE_OPTIONS": accepted})


def test_pragmas_are_for_both_apis(tmp_path: Path) -> None:
    bind = {"url": "sqlite://", "async": {"pragmas": {"foreign_keys": 1}}}
    with pytest.raises(ConfigError, match=r"unknown engine option 'pragmas'"):
        init(tmp_path, binds(reports=bind))


def test_password_among_the_parameters_is_not_shown(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql://db/shop?sslpassword=s3cret"
    db = SQLAlchemy(app)

    with app.app_context():
        assert repr(db) == "<SQLAlchemy postgresql://db/shop?sslpassword=***>"
        assert "s3cret" not in repr(db.sync.engines)
