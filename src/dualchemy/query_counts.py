"""How do both APIs count the statements of a block? Nothing in it is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import schema

if TYPE_CHECKING:
    from .extension import Extension
    from .testing.counting import QueryCount  # only a test has one


class QueryCounts:
    """What ``db.sync`` and ``db.aio`` have in common."""

    _db: Extension

    def count_queries(
        self, bind_key: schema.BindKeys = schema.ALL, *, app: Any = None
    ) -> QueryCount:
        """Capture the statements that an app's databases get in a block, in any context,
        thread or task: ``with db.count_queries() as queries: ...``. ``async with`` does
        the same.

        :param bind_key: A bind key or a list of them; all by default.
        :param app: The app; the current one if ``None``.
        :return: Its block has a list that grows while it runs.
        :raises ContextError: without ``app``, outside an app context.
        :raises UnknownBindKeyError: if a key is not configured.
        """
        from .testing.counting import QueryCount

        return QueryCount(self._db, bind_key, app)

    def assert_queries(
        self, count: int, bind_key: schema.BindKeys = schema.ALL, *, app: Any = None
    ) -> QueryCount:
        """:meth:`count_queries`, which must be so many at the end of the block.

        :raises AssertionError: if they are not; it lists them.
        """
        from .testing.counting import QueryCount

        return QueryCount(self._db, bind_key, app, expected=count)
