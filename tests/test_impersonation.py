"""Dualchemy where code imports ``flask_sqlalchemy``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from flask import Flask

import dualchemy

needs_genuine = pytest.mark.skipif(
    importlib.util.find_spec("flask_sqlalchemy") is None,
    reason="Flask-SQLAlchemy is not installed",
)

NAMES = {
    "": ["SQLAlchemy", "__version__"],
    "cli": ["add_models_to_shell"],
    "extension": ["SQLAlchemy"],
    "model": [
        "BindMetaMixin",
        "BindMixin",
        "DefaultMeta",
        "DefaultMetaNoName",
        "Model",
        "NameMetaMixin",
        "NameMixin",
        "camel_to_snake_case",
        "should_set_tablename",
    ],
    "pagination": ["Pagination", "QueryPagination", "SelectPagination"],
    "query": ["Query"],
    "record_queries": ["get_recorded_queries"],
    "session": ["Session"],
    "table": ["_Table"],
    "track_modifications": ["before_models_committed", "models_committed"],
}
"""What Flask-SQLAlchemy 3.1.1 offers, by submodule."""


def full_name(submodule: str) -> str:
    return f"flask_sqlalchemy.{submodule}" if submodule else "flask_sqlalchemy"


def imported() -> dict[str, ModuleType]:
    return {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "flask_sqlalchemy"
    }


def forget() -> None:
    for name in imported():
        del sys.modules[name]


@pytest.fixture(autouse=True)
def nothing_imported() -> Iterator[None]:
    """Nobody has imported ``flask_sqlalchemy`` yet."""
    before = imported()
    forget()
    yield
    forget()
    sys.modules.update(before)


class TestInstall:
    def test_every_name_is_dualchemys(self) -> None:
        dualchemy.install_as_flask_sqlalchemy()
        for submodule, names in NAMES.items():
            module = importlib.import_module(full_name(submodule))
            assert module.__name__ == full_name(submodule)
            for name in names:
                value = getattr(module, name)
                home = getattr(value, "__module__", "dualchemy")
                assert home.startswith(("dualchemy", "blinker")), name
            if submodule:
                package = importlib.import_module("flask_sqlalchemy")
                assert getattr(package, submodule) is module

    @needs_genuine
    def test_no_public_name_of_the_genuine_one_is_missing(self) -> None:
        package = importlib.import_module("flask_sqlalchemy")
        submodules = {each.name for each in pkgutil.iter_modules(package.__path__)}
        assert submodules == set(NAMES) - {""}
        for submodule, names in NAMES.items():
            module = importlib.import_module(full_name(submodule))
            own = {
                name
                for name, value in vars(module).items()
                if getattr(value, "__module__", None) == module.__name__
                and not name.startswith("_")
            }
            assert own <= set(names)

    def test_program_written_for_flask_sqlalchemy(self) -> None:
        dualchemy.install_as_flask_sqlalchemy()
        from flask_sqlalchemy import SQLAlchemy
        from flask_sqlalchemy.cli import add_models_to_shell
        from flask_sqlalchemy.model import Model
        from flask_sqlalchemy.pagination import Pagination

        class Common(Model):
            def hello(self) -> str:
                return "hello"

        class Named(Common):
            pass

        db = SQLAlchemy(model_class=Named)
        assert isinstance(db, dualchemy.SQLAlchemy)
        assert db.__class__ is type(db)

        class User(db.Model):
            id = db.Column(db.Integer, primary_key=True)

        assert issubclass(User, Model)
        app = Flask("shop")
        app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
        db.init_app(app)
        with app.app_context():
            db.create_all()
            db.session.add(User())
            db.session.commit()
            page = db.paginate(db.select(User))
            assert isinstance(page, Pagination)
            assert isinstance(User.query.paginate(), Pagination)
            assert page.items[0].hello() == "hello"
            assert add_models_to_shell() == {"User": User, "db": db}
            db.sync.dispose()

    def test_base_of_models_is_a_plain_class(self) -> None:
        """Packages derive mixins from it, and look for it among a model's bases."""
        dualchemy.install_as_flask_sqlalchemy()
        from flask_sqlalchemy.model import Model

        class Base(dualchemy.Model):
            pass

        class Mixin(Model):
            pass

        db: Any = dualchemy.SQLAlchemy(model_class=Model)

        class Post(Mixin, db.Model):
            id = db.Column(db.Integer, primary_key=True)

        assert issubclass(Base, Model)
        assert issubclass(Post, Model)
        assert Post.__tablename__ == "post"

    def test_twice_is_once(self) -> None:
        dualchemy.install_as_flask_sqlalchemy()
        first = imported()
        dualchemy.install_as_flask_sqlalchemy()
        assert imported() == first

    def test_what_does_not_exist_is_the_usual_error(self) -> None:
        dualchemy.install_as_flask_sqlalchemy()
        assert importlib.util.find_spec("flask_sqlalchemy") is not None
        assert importlib.util.find_spec("flask_sqlalchemy.model") is not None
        with pytest.raises(ModuleNotFoundError, match=r"'flask_sqlalchemy\.utils'"):
            importlib.import_module("flask_sqlalchemy.utils")
        with pytest.raises(ImportError, match="'get_debug_queries'"):
            from flask_sqlalchemy import get_debug_queries  # noqa: F401

    def test_import_that_was_prevented_is_no_import(self) -> None:
        sys.modules["flask_sqlalchemy"] = None  # type: ignore[assignment]
        dualchemy.install_as_flask_sqlalchemy()
        module = importlib.import_module("flask_sqlalchemy")
        assert module.SQLAlchemy is dualchemy.SQLAlchemy

    @needs_genuine
    def test_genuine_one_imported_before_is_a_warning_that_names_who_keeps_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = importlib.import_module("flask_sqlalchemy.model")
        for name, value in (
            ("shop", importlib.import_module("flask_sqlalchemy").SQLAlchemy),
            ("till", genuine),
            ("yard", dualchemy.SQLAlchemy),
        ):
            module = ModuleType(name)
            module.held = value  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, name, module)
        with pytest.warns(RuntimeWarning, match="was imported before") as caught:
            dualchemy.install_as_flask_sqlalchemy()
        assert caught[0].filename == __file__
        users = str(caught[0].message).partition("keep its classes: ")[2]
        named = users.removesuffix(". Call it first.").split(", ")
        assert {"shop", "till"} <= set(named)
        assert not {"yard", "dualchemy", "flask_sqlalchemy.model"} & set(named)
        assert importlib.import_module("flask_sqlalchemy.model") is not genuine

    @needs_genuine
    def test_nothing_is_done_where_the_warning_is_an_error(self) -> None:
        importlib.import_module("flask_sqlalchemy")
        before = imported()
        with pytest.raises(RuntimeWarning):
            dualchemy.install_as_flask_sqlalchemy()
        assert imported() == before


class Shop(dualchemy.SQLAlchemy):
    """The shop's."""

    label = "shop"


class TestIsinstance:
    """Where Flask-SQLAlchemy itself is imported by somebody."""

    @needs_genuine
    def test_db_is_one_of_both(self) -> None:
        db = Shop()
        assert db.__class__ is Shop
        genuine = importlib.import_module("flask_sqlalchemy")
        assert isinstance(db, genuine.SQLAlchemy)
        assert isinstance(db, Shop)
        assert isinstance(db, dualchemy.SQLAlchemy)
        assert not isinstance(db, genuine.model.Model)
        assert type(db) is Shop
        assert not isinstance(db.session, genuine.SQLAlchemy)

    @needs_genuine
    def test_class_attribute_is_a_subclass_of_both(self) -> None:
        importlib.import_module("flask_sqlalchemy")
        cls = Shop().__class__
        assert cls is Shop().__class__
        assert issubclass(cls, Shop)
        assert cls.label == "shop"
        assert (cls.__module__, cls.__qualname__) == (Shop.__module__, "Shop")
        assert cls.__doc__ == Shop.__doc__

    def test_what_is_no_class_is_no_trouble(self) -> None:
        sys.modules["flask_sqlalchemy"] = SimpleNamespace(SQLAlchemy="mock")  # type: ignore[assignment]
        assert Shop().__class__ is Shop


def test_nobody_is_impersonated_unasked() -> None:
    code = """
import sys, dualchemy
isinstance(dualchemy.SQLAlchemy(), int)
print([name for name in sys.modules if name.startswith("flask_sqlalchemy")])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
