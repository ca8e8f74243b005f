"""How do many transactions live on one connection, and each commit or roll back alone?

The connection is in one transaction, which is never committed. Each of the code's own
transactions is a savepoint in it, or several. Savepoints form a stack and transactions
do not: they may overlap, as those of two requests do. What follows from that:

- A commit only closes savepoints. They are released once no open one lies above them,
  for that would go with them.
- A transaction has a savepoint that is newer than what others wrote, whenever it writes:
  going back to that undoes nothing of theirs.
- A transaction that wrote before another one did cannot be rolled back without it. That
  alone is refused, by :exc:`.IsolationError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import IsolationError

Send = Callable[[str], Any]
"""Runs SQL on the connection, and returns its rows, if it has any."""

_COMMENTS = r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*"
_FIRST_WORD = re.compile(_COMMENTS + r"(\w+)", re.DOTALL)
_CHANGES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|INTO)\b", re.IGNORECASE)
_SAVEPOINT = re.compile(
    _COMMENTS + r"(?:SAVEPOINT|(RELEASE)(?:\s+SAVEPOINT)?"
    r"|(ROLLBACK)(?:\s+(?:WORK|TRANSACTION))?\s+TO(?:\s+SAVEPOINT)?)\s+([^\s;]+)[\s;]*\Z",
    re.IGNORECASE | re.DOTALL,
)
_READS = {"SELECT", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "VALUES", "PRAGMA", "TABLE"}
_COMMITS_ITSELF = {
    *("ALTER", "ANALYZE", "CREATE", "DROP", "FLUSH", "GRANT", "INSTALL", "LOAD"),
    *("LOCK", "OPTIMIZE", "RENAME", "REPAIR", "REVOKE", "TRUNCATE", "UNLOCK"),
}
"""Statements before which MySQL and MariaDB commit.
https://mariadb.com/kb/en/sql-statements-that-cause-an-implicit-commit/
"""
_TEMPORARY = re.compile(r"\s*(?:CREATE|DROP)\s+TEMPORARY\b", re.IGNORECASE)


@dataclass(eq=False, slots=True)
class Savepoint:
    """A place in the one transaction that can be gone back to."""

    owner: Transaction
    name: str
    label: str | None
    """What its owner calls it, if the owner asked for it."""
    time: int
    is_open: bool = True


class Stack:
    """The savepoints of a connection, and who wrote what after which.

    :param send: Runs SQL on the connection.
    :param dialect_name: SQLAlchemy's name of the database.
    """

    def __init__(self, send: Send, dialect_name: str) -> None:
        self._send = send
        self.aborts: bool = dialect_name in {"postgresql", "cockroachdb"}
        """Whether an error ends the transaction but for going back to a savepoint."""
        self.commits_ddl: bool = dialect_name in {"mysql", "mariadb"}
        self._has_deferred: bool | None = None
        self._savepoints: list[Savepoint] = []
        self._time = 0
        self._last_writes: dict[Transaction, int] = {}
        self.broken: BaseException | None = None
        """What ended the one transaction, or the connection."""
        self.is_over = False
        """Whether the isolation has ended."""

    def send(self, sql: str) -> Any:
        """Run SQL of our own.

        :raises IsolationError: if it fails: then the one transaction is no more.
        """
        self.check()
        try:
            return self._send(sql)
        except Exception as error:
            self.broken = error
            raise self._lost() from error

    def check(self) -> None:
        """Refuse a connection that is not isolated any more.

        :raises IsolationError: if it is not.
        """
        if self.broken is not None:
            raise self._lost() from self.broken

    def _lost(self) -> IsolationError:
        return IsolationError(
            "The connection of the isolation was lost, or its transaction ended:"
            f" {self.broken}. What was done in it is gone. It cannot be carried on."
        )

    def push(self, owner: Transaction, label: str | None = None) -> Savepoint:
        name = f"dualchemy_{len(self._savepoints)}"
        self.send(f"SAVEPOINT {name}")
        savepoint = Savepoint(owner, name, label, self._time)
        self._savepoints.append(savepoint)
        return savepoint

    def of(self, owner: Transaction) -> list[Savepoint]:
        """Return the open savepoints of a transaction, the oldest first."""
        return [
            each for each in self._savepoints if each.owner is owner and each.is_open
        ]

    def note_write(self, writer: Transaction) -> None:
        self._time += 1
        self._last_writes[writer] = self._time

    def is_newer(self, savepoint: Savepoint) -> bool:
        """Tell whether nobody but its owner wrote after a savepoint."""
        return all(
            time <= savepoint.time
            for writer, time in self._last_writes.items()
            if writer is not savepoint.owner
        )

    def go_back(self, savepoint: Savepoint) -> None:
        """Undo what was done after a savepoint, all of it by its owner."""
        self.send(f"ROLLBACK TO SAVEPOINT {savepoint.name}")
        place = self._savepoints.index(savepoint) + 1
        others = [
            each
            for each in self._savepoints[place:]
            if each.is_open and each.owner is not savepoint.owner
        ]
        del self._savepoints[place:]
        for other in others:  # They have nothing to undo, but are to be there.
            name = self.push(other.owner, other.label).name
            self._savepoints[-1] = other
            other.name = name

    def close(self, savepoints: list[Savepoint]) -> None:
        """Give up savepoints, and keep what was done after them."""
        for savepoint in savepoints:
            savepoint.is_open = False
        place = len(self._savepoints)
        while place > 0 and not self._savepoints[place - 1].is_open:
            place -= 1
        if place < len(self._savepoints):
            self.send(f"RELEASE SAVEPOINT {self._savepoints[place].name}")
            del self._savepoints[place:]
        if not self._savepoints:
            self._last_writes.clear()

    def note_change_of_tables(self) -> None:
        self._has_deferred = None

    def check_constraints(self, owner: Transaction) -> None:
        """Have PostgreSQL check now what it would check at a commit. Going back makes
        constraints deferred again, and forgets nothing that was not checked.
        """
        if not self.aborts:
            return
        if self._has_deferred is None:
            found = self.send("SELECT 1 FROM pg_constraint WHERE condeferrable LIMIT 1")
            self._has_deferred = bool(found)
        if self._has_deferred:
            place = self.push(owner)
            try:
                self._send("SET CONSTRAINTS ALL IMMEDIATE")
            finally:
                self.go_back(place)
                self.close([place])

    def undo(self, owner: Transaction) -> None:
        """Undo all that came after the oldest savepoint of an inner isolation, by whoever
        it was.
        """
        place = self._savepoints.index(self.of(owner)[0])
        self.send(f"ROLLBACK TO SAVEPOINT {self._savepoints[place].name}")
        for each in self._savepoints[place:]:
            each.owner.end_with_isolation()
        del self._savepoints[place + 1 :]
        self.close(self._savepoints[place:])


class Transaction:
    """What one connection of the code under test has begun, again and again."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._base: Savepoint | None = None
        """Where a rollback goes: before its first change."""
        self.has_failed: bool = False
        """Whether the database would answer nothing but a rollback."""
        self._is_undone = False
        self.autocommits: bool = False
        """Whether each statement is a transaction."""

    @property
    def is_begun(self) -> bool:
        """Whether there is something to roll back."""
        return not self.is_over and bool(self._stack.of(self))

    @property
    def is_over(self) -> bool:
        """Whether the isolation that it was begun in has ended."""
        return self._is_undone or self._stack.is_over

    def end_with_isolation(self) -> None:
        self._is_undone = True

    def before(self, sql: str) -> bool:
        """Prepare for a statement.

        :return: Whether it is to be sent; it is not if it was done here.
        :raises IsolationError: if it cannot be isolated.
        """
        stack = self._stack
        self.check_life()
        match = _FIRST_WORD.match(sql)
        word = match[1].upper() if match else ""
        if self._control(word, sql):
            return False
        if stack.commits_ddl and word in _COMMITS_ITSELF and not _TEMPORARY.match(sql):
            raise IsolationError(
                f"MySQL and MariaDB commit before {word}, which an isolation could not"
                " undo. Create the tables before it begins."
            )
        if self.has_failed:
            return True
        if word in _READS or (word == "WITH" and not _CHANGES.search(sql)):
            if stack.aborts:
                self._protect()
            return True
        savepoint = self._protect()
        self._base = self._base or savepoint
        stack.note_write(self)
        if word in {"CREATE", "ALTER", "DROP"}:
            stack.note_change_of_tables()
        return True

    def after_error(self) -> None:
        """Make the connection fit for others again."""
        if self._stack.aborts and not self.has_failed:
            self.has_failed = True
            self._stack.go_back(self._stack.of(self)[-1])

    def after_success(self) -> None:
        if self.autocommits:
            self.commit()

    def commit(self) -> None:
        """Keep what was done. PostgreSQL rolls back a transaction that has failed.

        :raises sqlalchemy.exc.DBAPIError: of the driver, if a deferred constraint fails.
        """
        self.check_life()
        if self.has_failed:
            self.rollback()
            return
        if self._base is not None:
            self._stack.check_constraints(self)
        self._end()

    def rollback(self) -> None:
        """Undo what was done.

        :raises IsolationError: if others wrote meanwhile.
        """
        if self.is_over or self._stack.broken is not None:
            return
        base = self._base
        try:
            if base is not None:
                self._check_newer(base)
                self._stack.go_back(base)
        finally:
            self._end()

    def _end(self) -> None:
        self._base = None
        self.has_failed = False
        if savepoints := self._stack.of(self):
            self._stack.close(savepoints)

    def check_life(self) -> None:
        """Refuse what would not be isolated.

        :raises IsolationError: if the isolation has ended, or the connection was lost.
        """
        self._stack.check()
        if self.is_over:
            raise IsolationError(
                "The isolation has ended in which this connection was taken. Close the"
                " session, or leave its app context, before that."
            )

    def _check_newer(self, savepoint: Savepoint) -> None:
        if not self._stack.is_newer(savepoint):
            raise IsolationError(
                "This transaction cannot be rolled back alone: another one wrote to the"
                " database after it, on the one connection of the isolation. Commit"
                " or roll back one before the next one writes."
            )

    def _protect(self) -> Savepoint:
        """Return a savepoint of ours that is newer than what others wrote."""
        savepoints = self._stack.of(self)
        if savepoints and self._stack.is_newer(savepoints[-1]):
            return savepoints[-1]
        return self._stack.push(self)

    def _control(self, word: str, sql: str) -> bool:
        """Do what a statement says of transactions.

        :return: Whether it did.
        """
        if word in {"SAVEPOINT", "RELEASE", "ROLLBACK"} and (
            match := _SAVEPOINT.match(sql)
        ):
            releases, goes_back, label = match.groups()
            if releases:
                self._release(label)
            elif goes_back:
                self._go_back(label)
            else:
                self._base = self._base or self._protect()
                self._stack.push(self, label)
        elif word in {"COMMIT", "END"}:
            self.commit()
        elif word == "ROLLBACK":
            self.rollback()
        elif word not in {"BEGIN", "START"}:
            if word == "XA" or (word == "PREPARE" and "TRANSACTION" in sql.upper()):
                raise IsolationError("A two-phase transaction cannot be isolated.")
            return False
        return True

    def _labelled(self, label: str) -> list[Savepoint]:
        """Return the savepoint with a label, and those after it."""
        savepoints = self._stack.of(self)
        for number in range(len(savepoints) - 1, -1, -1):
            if savepoints[number].label == label:
                return savepoints[number:]
        raise IsolationError(f"There is no savepoint {label!r} in this transaction.")

    def _release(self, label: str) -> None:
        self._stack.close(self._labelled(label))

    def _go_back(self, label: str) -> None:
        savepoint = self._labelled(label)[0]
        self._check_newer(savepoint)
        self._stack.go_back(savepoint)
        self.has_failed = False
