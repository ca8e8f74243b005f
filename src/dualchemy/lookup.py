"""How does a view get one row, or answer ``404 Not Found``?

Plain functions on the sync session. The sync API calls them; the async API runs the
same functions through :meth:`AsyncSession.run_sync
<sqlalchemy.ext.asyncio.AsyncSession.run_sync>`, once for the whole operation.
"""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.exc import MultipleResultsFound, NoResultFound

from .frameworks import abort

O = TypeVar("O", bound=object)


def get_or_404(
    session: orm.Session,
    entity: type[O],
    ident: Any,
    description: str | None,
    options: dict[str, Any],
) -> O:
    """Return the row of a model with this primary key, or abort."""
    value = session.get(entity, ident, **options)
    if value is None:
        abort(404, description)
    return value


def first_or_404(
    session: orm.Session, statement: sa.Executable, description: str | None
) -> Any:
    """Return the first column of the first row, or abort if that is ``None``."""
    value = session.execute(statement).scalar()
    if value is None:
        abort(404, description)
    return value


def one_or_404(
    session: orm.Session, statement: sa.Executable, description: str | None
) -> Any:
    """Return the first column of the only row, or abort."""
    try:
        return session.execute(statement).scalar_one()
    except (NoResultFound, MultipleResultsFound):
        abort(404, description)
