"""What does the legacy query interface add to SQLAlchemy's?

Sync API only: a ``Query`` loads while it is used, which async code cannot await.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack

from sqlalchemy import orm
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

from .errors import ContextError
from .frameworks import abort, current_framework

if TYPE_CHECKING:
    from .models import ModelBehaviour
    from .pagination import PageOptions, Pagination

__all__ = ["Query"]

T = TypeVar("T", bound=Any)


class Query(orm.Query[T]):
    """A :class:`sqlalchemy.orm.Query` with methods for views."""

    def get_or_404(self, ident: Any, description: str | None = None) -> T:
        """Return the row with this primary key, or abort with ``404 Not Found``.

        :param ident: The primary key.
        :param description: Shown on the error page.
        """
        value = self.get(ident)
        if value is None:
            abort(404, description)
        return value

    def first_or_404(self, description: str | None = None) -> T:
        """Return the first row, or abort with ``404 Not Found``.

        :param description: Shown on the error page.
        """
        value = self.first()
        if value is None:
            abort(404, description)
        return value

    def one_or_404(self, description: str | None = None) -> T:
        """Return the only row, or abort with ``404 Not Found`` if there is none, or
        more than one.

        :param description: Shown on the error page.
        """
        try:
            return self.one()
        except (NoResultFound, MultipleResultsFound):
            abort(404, description)

    def paginate(self, **options: Unpack[PageOptions]) -> Pagination[T]:
        """Return a page of the rows; see :meth:`.SyncHelpers.paginate`."""
        from .pagination.offset import QueryPagination
        from .pagination.options import PageOptions, check_keywords

        check_keywords("paginate", options, PageOptions)
        return QueryPagination(query=self, **options)


class QueryProperty:
    """``Model.query``: a query for the class it is read on."""

    def __get__(
        self, instance: ModelBehaviour | None, model: type[ModelBehaviour]
    ) -> Query[Any]:
        framework = current_framework()
        if framework is not None and framework.is_async and framework.runs_here():
            _refuse(model.__name__)
        return model.query_class(model, session=model.__fsa__.sync.session())


def _refuse(name: str) -> NoReturn:
    raise ContextError(
        f"'{name}.query' is the sync API's, and would block the event loop. Under Quart"
        f" write 'await db.session.scalars(select({name}).where(...))'."
    )
