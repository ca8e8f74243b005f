"""Who hears of the models that a commit changes?

Signals of :mod:`blinker`, sent while ``SQLALCHEMY_TRACK_MODIFICATIONS`` is set. The
sender is the application, ``changes`` a list of ``(object, operation)`` with
``"insert"``, ``"update"`` or ``"delete"``. An exception of a receiver reaches the
caller of ``commit``.

A receiver may be a coroutine function: on the async API it is awaited by the task that
commits, in its turn among the others; under Flask it runs as an ``async def``
view does.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

from blinker import NamedSignal, Namespace
from sqlalchemy import event, inspect, orm

from .frameworks import current_context
from .scope import registration_of

__all__ = ["before_models_committed", "models_committed"]

_signals = Namespace()

before_models_committed: NamedSignal = _signals.signal("before-models-committed")
"""Sent before the commit. What a receiver adds to the session is committed with it."""

models_committed: NamedSignal = _signals.signal("models-committed")
"""Sent after the commit. The session that committed can run no statement meanwhile; a
new one can.
"""

Changes: TypeAlias = dict[Any, tuple[object, str]]
"""Identity keys, or ids of objects that have none yet, to changes."""


class Tracker:
    """The changes of one session since it last committed or rolled back."""

    __slots__ = ("changes", "savepoints")

    def __init__(self) -> None:
        self.changes: Changes = {}
        self.savepoints: dict[orm.SessionTransaction, Changes] = {}
        """What had changed when each open savepoint was set."""

    def record(self, session: orm.Session) -> None:
        """Note what the session is about to flush."""
        updated = [each for each in session.dirty if session.is_modified(each)]
        for targets, operation in (
            (session.new, "insert"),
            (updated, "update"),
            (session.deleted, "delete"),
        ):
            for target in targets:
                state: orm.InstanceState[Any] = inspect(target, raiseerr=True)
                key = state.identity_key if state.has_identity else id(target)
                self.changes[key] = target, operation

    def forget(self) -> None:
        """Begin anew, after the transaction ended."""
        self.changes.clear()
        self.savepoints.clear()


def track(session_class: type[orm.Session]) -> None:
    """Have the sessions of a class send the signals."""
    for name, listener in (
        ("before_flush", _before_flush),
        ("before_commit", _before_commit),
        ("after_commit", _after_commit),
        ("after_transaction_create", _savepoint_set),
        ("after_soft_rollback", _after_soft_rollback),
    ):
        event.listen(session_class, name, listener)


def _tracker_of(session: Any) -> Tracker:
    tracker: Tracker | None = session._tracker
    if tracker is None:
        tracker = session._tracker = Tracker()
    return tracker


def _before_flush(session: Any, context: object, instances: object) -> None:
    _tracker_of(session).record(session)


def _before_commit(session: Any) -> None:
    if not before_models_committed.receivers:
        return  # the flush that follows records the same
    tracker = _tracker_of(session)
    tracker.record(session)
    if tracker.changes:
        _send(before_models_committed, session, tracker.changes)


def _after_commit(session: Any) -> None:
    tracker = _tracker_of(session)
    if tracker.changes:
        changes = dict(tracker.changes)
        tracker.forget()
        _send(models_committed, session, changes)


def _savepoint_set(session: Any, transaction: orm.SessionTransaction) -> None:
    if transaction.nested:
        tracker = _tracker_of(session)
        tracker.savepoints[transaction] = dict(tracker.changes)


def _after_soft_rollback(session: Any, transaction: orm.SessionTransaction) -> None:
    tracker = _tracker_of(session)
    if transaction.nested:
        tracker.changes = tracker.savepoints.pop(transaction, {})
    elif transaction.parent is None:
        tracker.forget()


def _send(signal: NamedSignal, session: Any, changes: Changes) -> None:
    if not signal.receivers:
        return
    registration = registration_of(session._db, session._app)
    if not registration.config.track_modifications:
        return
    app = session._app or current_context().app  # type: ignore[union-attr]
    wrapper = partial(session._caller_of, registration.framework, app)
    signal.send(app, _async_wrapper=wrapper, changes=list(changes.values()))
