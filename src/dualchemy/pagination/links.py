"""Where are the other pages?"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from ..errors import ContextError
from ..frameworks import current_request


def url_with(arguments: Mapping[str, object], *, external: bool) -> str:
    """Return the URL of the current request with some query arguments replaced, or
    added, and all others kept.

    :param external: With scheme and host, rather than from the path on.
    :raises ContextError: outside a request.
    """
    request = current_request()
    if request is None:
        raise ContextError(
            "Working outside of a request: the links of a page are URLs of the current"
            " request. In a test, wrap the code in 'with app.test_request_context():'"
            " (Flask) or 'async with app.test_request_context(\"/\"):' (Quart)."
        )
    kept = [each for each in request.args.items(multi=True) if each[0] not in arguments]
    path = quote(f"{request.root_path}{request.path}", safe=_PATH)
    host = f"{request.scheme}://{quote(request.host, safe=_HOST)}" if external else ""
    return f"{host}{path}?{urlencode([*kept, *arguments.items()])}"


_PATH = "!$&'()*+,/:;=@"
_HOST = ":[]"


class Linked:
    """A page whose neighbours have URLs."""

    def _arguments_of(self) -> dict[str, dict[str, object]]:
        """Return the query arguments of each page that this one links to, by relation:
        ``first``, ``prev``, ``next``, ``last``.
        """
        raise NotImplementedError

    def links(self, *, external: bool = True) -> dict[str, str]:
        """Return the URLs of the ``first``, ``prev``, ``next`` and ``last`` page, as far
        as there are any: those of the current request, its other arguments kept.

        :param external: With scheme and host, as clients of an API need them, rather
            than from the path on.
        :raises ContextError: outside a request.
        """
        return {
            relation: url_with(arguments, external=external)
            for relation, arguments in self._arguments_of().items()
        }

    def link_header(self) -> str:
        """Return the value of a ``Link`` header with :meth:`links`, by RFC 8288.

        :raises ContextError: outside a request.
        """
        return ", ".join(
            f'<{url}>; rel="{relation}"' for relation, url in self.links().items()
        )
