"""What is a model, and which metadata does it belong to?

There is one set of behaviours, :class:`ModelBehaviour`, and two ways to get it:
subclass :class:`Model`, which makes a declarative base that type checkers understand,
or let :class:`.SQLAlchemy` add it to whatever base you pass as ``model_class``.
"""

from __future__ import annotations

import types
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.exc import InvalidRequestError

from .errors import ConfigError
from .naming import NameMetaMixin, NameMixin
from .query import Query, QueryProperty
from .routing import Metadatas

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncAttrs

    from .extension import Extension  # only to name the owner of a model

__all__ = ["DefaultMeta", "DefaultMetaNoName", "Model"]


class ModelBehaviour:
    """What every model of ``db`` can do, whatever its declarative base."""

    __fsa__: ClassVar[Extension]
    """The extension object, under the name that packages made for Flask-SQLAlchemy look
    for.

    :meta private:
    """

    __metadatas__: ClassVar[Metadatas]
    """:meta private:"""

    query_class: ClassVar[type[Query[Any]]] = Query
    """The class of :attr:`query`. Legacy, as that is."""

    query: ClassVar[QueryProperty] = QueryProperty()
    """A legacy :class:`.Query` for the model, on the sync API only. Prefer
    ``db.session.execute(select(...))``.
    """

    @property
    def awaitable_attrs(self) -> AsyncAttrs._AsyncAttrGetitem:
        """The attributes as awaitables, which load what is not loaded:
        ``posts = await user.awaitable_attrs.posts``.
        """
        from sqlalchemy.ext.asyncio import AsyncAttrs

        getter = AsyncAttrs.awaitable_attrs
        return getter.__get__(self)  # type: ignore[arg-type,no-any-return,unused-ignore]

    def __repr__(self) -> str:
        state: orm.InstanceState[Any] = sa.inspect(self, raiseerr=True)
        if state.transient:
            key = f"(transient {id(self)})"
        elif state.pending:
            key = f"(pending {id(self)})"
        else:
            key = ", ".join(map(str, state.identity or ("(no identity)",)))
        return f"<{type(self).__name__} {key}>"


class BindMixin:
    """Puts a model with a ``__bind_key__`` into that bind's metadata, unless the model
    sets ``metadata`` or ``__table__`` itself.
    """

    metadata: ClassVar[sa.MetaData]
    __metadatas__: ClassVar[Metadatas]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if hasattr(cls, "__bind_key__"):
            _choose_metadata(cls)
        super().__init_subclass__(**kwargs)


class BindMetaMixin(type):
    """:class:`BindMixin` for SQLAlchemy 1.x declarative bases."""

    def __init__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        if hasattr(cls, "__metadatas__"):
            _choose_metadata(cls)
        super().__init__(name, bases, namespace, **kwargs)


def _choose_metadata(cls: Any) -> None:
    if "metadata" in cls.__dict__ or "__table__" in cls.__dict__:
        return
    metadata = cls.__metadatas__.of(getattr(cls, "__bind_key__", None))
    if metadata is not getattr(cls, "metadata", None):
        cls.metadata = metadata


class DefaultMeta(BindMetaMixin, NameMetaMixin, orm.DeclarativeMeta):
    """The metaclass of a :attr:`.SQLAlchemy.Model` that was made without a SQLAlchemy
    2.x base. Use it for a declarative base of your own.
    """


class DefaultMetaNoName(BindMetaMixin, orm.DeclarativeMeta):
    """:class:`DefaultMeta` without generated table names."""


class Model(ModelBehaviour, BindMixin, NameMixin, orm.DeclarativeBase):
    """Subclass this once for a declarative base of the project, and give that to
    :class:`.SQLAlchemy`; subclass the base for models. ::

        class Base(Model):
            pass

        db = SQLAlchemy(model_class=Base)

        class User(Base):
            id: Mapped[int] = mapped_column(primary_key=True)

    Each direct subclass is a :class:`~sqlalchemy.orm.DeclarativeBase` with a registry
    of its own; ``metadata``, ``registry`` and ``type_annotation_map`` may be set on it
    as there. Combine it with :class:`~sqlalchemy.orm.MappedAsDataclass` by naming that
    first: ``class Base(MappedAsDataclass, Model)``.
    """

    __abstract__ = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if Model in cls.__bases__:
            _make_base(cls)
            # Past DeclarativeBase, which would take the base for a model.
            super(orm.DeclarativeBase, cls).__init_subclass__(**kwargs)
        else:
            super().__init_subclass__(**kwargs)


def _make_base(cls: type[Model]) -> None:
    """Do for a direct subclass of :class:`Model` what SQLAlchemy does for one of
    ``DeclarativeBase``.
    """
    own = cls.__dict__
    registry = own.get("registry")
    if registry is None:
        registry = orm.registry(
            metadata=own.get("metadata"),
            type_annotation_map=own.get("type_annotation_map"),
        )
        cls.registry = registry
    elif "type_annotation_map" in own:
        raise InvalidRequestError(
            f"{cls.__name__} has both a 'registry' and a 'type_annotation_map'; give"
            " the map to the registry."
        )
    cls._sa_registry = registry
    if "metadata" not in own:
        cls.metadata = registry.metadata
    cls.__metadatas__ = Metadatas()
    cls.__metadatas__.adopt(None, cls.metadata)


def make_model(
    db: Extension,
    model_class: Any,
    *,
    metadata: sa.MetaData | None,
    disable_autonaming: bool,
) -> tuple[Any, Metadatas]:
    """Return ``db.Model`` and the metadatas of its bind keys.

    :raises ConfigError: if ``model_class`` cannot become a declarative base.
    """
    is_2x = isinstance(model_class, type) and issubclass(
        model_class, orm.DeclarativeBase | orm.DeclarativeBaseNoMeta
    )
    if is_2x and model_class is not Model:
        if metadata is not None:
            warnings.warn(
                "'metadata' is ignored with a SQLAlchemy 2.x declarative base: set it"
                f" as an attribute of {model_class.__name__} instead.",
                DeprecationWarning,
                stacklevel=3,
            )
        make = _own_base if issubclass(model_class, Model) else _extend_2x_base
        model = make(model_class, disable_autonaming)
    else:
        metadatas = Metadatas()
        if metadata is not None:
            metadatas.adopt(None, metadata)
        model = _make_1x_base(model_class, metadatas, disable_autonaming)

    model.query_class = db.Query
    model.__fsa__ = db
    return model, model.__metadatas__


def _own_base(model_class: Any, disable_autonaming: bool) -> Any:
    if Model not in model_class.__bases__ and "__abstract__" not in vars(model_class):
        raise ConfigError(
            f"model_class: {model_class.__name__} is a model, not a base. Pass the"
            " direct subclass of 'dualchemy.Model' that your models derive from."
        )
    if "__fsa__" in vars(model_class):
        raise ConfigError(
            f"model_class: {model_class.__name__} already belongs to another"
            " 'SQLAlchemy' instance. Use that instance, or make a second base."
        )
    if disable_autonaming:
        if model_class.registry.mappers:
            raise ConfigError(
                "disable_autonaming: models of"
                f" {model_class.__name__} are already defined, with generated names."
                " Set '__disable_autonaming__ = True' on the base instead."
            )
        model_class.__disable_autonaming__ = True
    return model_class


def _extend_2x_base(model_class: Any, disable_autonaming: bool) -> Any:
    bases = [
        base
        for base in model_class.__bases__
        if issubclass(base, orm.DeclarativeBase | orm.DeclarativeBaseNoMeta)
    ]
    if len(bases) != 1:
        raise ValueError(
            "Only one declarative base can be passed to SQLAlchemy. Got:"
            f" {model_class.__bases__}"
        )
    metadatas = Metadatas()
    metadatas.adopt(None, model_class.metadata)
    naming: tuple[type, ...] = () if disable_autonaming else (NameMixin,)
    # A subclass, so that nothing SQLAlchemy or dataclasses did to the base is done
    # twice.
    return types.new_class(
        "Model",
        (ModelBehaviour, BindMixin, *naming, model_class),
        exec_body=lambda namespace: namespace.update(
            __abstract__=True,
            __metadatas__=metadatas,
            __module__=model_class.__module__,
            __doc__=model_class.__doc__,
        ),
    )


def _make_1x_base(
    model_class: Any, metadatas: Metadatas, disable_autonaming: bool
) -> Any:
    if isinstance(model_class, orm.DeclarativeMeta):
        model: Any = model_class
        if None in metadatas:
            model.metadata = metadatas[None]
        else:
            metadatas.adopt(None, model.metadata)
        if not hasattr(model, "query"):
            model.query = QueryProperty()
    else:
        if not isinstance(model_class, type):
            raise ConfigError(
                f"model_class: expected a class, got {type(model_class).__name__!r}."
            )
        is_own = model_class in (Model, ModelBehaviour)
        bases: Any = ModelBehaviour if is_own else (model_class, ModelBehaviour)
        model = orm.declarative_base(
            metadata=metadatas.of(None),
            cls=bases,
            name="Model",
            metaclass=DefaultMetaNoName if disable_autonaming else DefaultMeta,
        )
    model.__metadatas__ = metadatas
    return model
