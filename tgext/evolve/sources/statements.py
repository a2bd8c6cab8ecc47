"""A script of SQL as its single statements, by the rules of the database that they are for.

SQLite says itself where a statement ends. For the others sqlglot finds the tokens (what is a string, a comment, a
dollar-quoted body differs between them), and the rest is a matter of counting what opens and closes.
"""

from __future__ import annotations

import re
import sqlite3
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import SourceError

#: What sqlglot calls the databases that it is needed for.
DIALECTS = {'postgresql': 'postgres', 'mysql': 'mysql', 'mariadb': 'mysql'}

Wrong = Callable[[int, str, str], SourceError]


@dataclass(frozen=True)
class Statement:
    """One statement, without its semicolon.

    :param line: where its first word stands, from 1.
    :param words: its first words in capitals, enough to tell what it is.
    """

    text: str
    line: int
    words: tuple[str, ...]


def statements_of(text: str, backend: str, wrong: Wrong) -> list[Statement]:
    """The statements of a script, in order.

    :param backend: the name of the database, as SQLAlchemy has it.
    :param wrong: makes the error, of a line, what is wrong and the remedy.
    :raises SourceError: it does not end where it should, or is not for a driver but for a command-line client.
    """
    split = _sqlite if backend == 'sqlite' else _by_tokens
    found = list(split(text, backend, wrong))
    for statement in found:
        _check(statement, backend, wrong)
    return found


def _check(statement: Statement, backend: str, wrong: Wrong) -> None:
    first = statement.words[0] if statement.words else ''
    if first == 'DELIMITER':
        raise wrong(
            statement.line,
            'DELIMITER is a command of the mariadb and mysql clients, and no SQL',
            'Leave these lines out, and write ; at the end: what stands between BEGIN and END is kept in one piece.',
        )
    if first.startswith(('\\', '.')):
        raise wrong(
            statement.line,
            f'{statement.text.split()[0]} is a command of a command-line client, and no SQL',
            'Write it in SQL, or in an Evolution.',
        )
    if backend == 'postgresql' and first == 'COPY' and _BESIDE.search(statement.text):
        raise wrong(
            statement.line,
            'COPY from a script needs rows beside it, which only psql can read',
            'Write INSERT, or an Evolution that calls cursor.copy().',
        )


_BESIDE = re.compile(r'\b(FROM\s+STDIN|TO\s+STDOUT)\b', re.IGNORECASE)


# -- SQLite

_COMMENTS = re.compile(r'(?:\s+|--[^\n]*|/\*.*?\*/)*', re.DOTALL)
_WORD = re.compile(r'\s*([A-Za-z_]\w*|[^\w\s])')


def _sqlite(text: str, backend: str, wrong: Wrong) -> Iterator[Statement]:
    begin = 0
    for semicolon in re.finditer(';', text):
        if sqlite3.complete_statement(text[begin : semicolon.end()]):
            yield from _plain(text, begin, semicolon.start())
            begin = semicolon.end()
    for statement in _plain(text, begin, len(text)):
        if not sqlite3.complete_statement(text[begin:] + '\n;'):
            raise wrong(
                statement.line,
                'this statement has no end',
                'Close its string or comment; a trigger ends with END and a semicolon.',
            )
        yield statement


def _plain(text: str, begin: int, end: int) -> Iterator[Statement]:
    """One statement, unless there is nothing but comments."""
    start = _COMMENTS.match(text, begin, end).end()  # type: ignore[union-attr]
    if start < end:
        words: list[str] = []
        place = start
        while len(words) < _WORDS and (word := _WORD.match(text, place, end)):
            words.append(word.group(1).upper())
            place = word.end()
        yield Statement(text[start:end].rstrip(), _line(text, start), tuple(words))


def _line(text: str, place: int) -> int:
    """Counted, not as sqlglot has it: after a dollar sign it may be too far."""
    return bisect(_newlines(text), place) + 1


@lru_cache(maxsize=1)
def _newlines(text: str) -> list[int]:
    return [match.start() for match in re.finditer('\n', text)]


#: How many words tell what a statement is.
_WORDS = 12


# -- the others, by their tokens


def _by_tokens(text: str, backend: str, wrong: Wrong) -> Iterator[Statement]:
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.errors import TokenError

    try:
        tokens = Dialect.get_or_raise(DIALECTS[backend]).tokenize(text)
    except TokenError as error:
        raise wrong(
            _line_of(error, text), f'it cannot be read: {_first_line(error)}', 'Close its string or comment.'
        ) from None
    begin = 0
    own: list[Any] = []
    blocks = _BLOCKS[backend]()
    for token in tokens:
        if token.token_type.name != 'SEMICOLON':
            own.append(token)
            blocks.see(token)
        elif blocks.are_closed:
            yield from _tokenized(text, begin, token.start, own)
            begin, own, blocks = token.end + 1, [], _BLOCKS[backend]()
    if not blocks.are_closed:
        raise wrong(
            _line(text, own[0].start),
            'this statement has no end',
            'Close its parentheses; what begins with BEGIN ends with END.',
        )
    yield from _tokenized(text, begin, len(text), own)


def _tokenized(text: str, begin: int, end: int, own: Sequence[Any]) -> Iterator[Statement]:
    if own:
        words = tuple(token.text.upper() for token in own[:_WORDS] if _is_word(token))
        start = own[0].start
        if own[0].token_type.name == 'BACKSLASH':
            words = ('\\',)
        yield Statement(text[start:end].rstrip(), _line(text, start), words)
    elif conditional := _CONDITIONAL.search(text, begin, end):
        # Of these databases, a comment that is run.
        start = conditional.start()
        yield Statement(text[start:end].rstrip(), _line(text, start), ())


_CONDITIONAL = re.compile(r'/\*M?!')


def _is_word(token: Any) -> bool:
    return token.token_type.name not in _QUOTED


#: What stands in quotes is no keyword.
_QUOTED = frozenset(
    {
        'STRING',
        'IDENTIFIER',
        'HEREDOC_STRING',
        'RAW_STRING',
        'NATIONAL_STRING',
        'BYTE_STRING',
        'HEX_STRING',
        'BIT_STRING',
        'UNICODE_STRING',
    }
)


class _PostgresBlocks:
    """Semicolons of a statement's own stand in parentheses (rules), and between BEGIN ATOMIC and END (functions)."""

    def __init__(self) -> None:
        self._parentheses = 0
        self._depth = 0
        self._before = ''

    @property
    def are_closed(self) -> bool:
        return self._parentheses <= 0 and self._depth <= 0

    def see(self, token: Any) -> None:
        word = token.text.upper() if _is_word(token) else ''
        if word in ('(', ')'):
            self._parentheses += 1 if word == '(' else -1
        elif (word == 'ATOMIC' and self._before == 'BEGIN') or (word == 'CASE' and self._depth):
            self._depth += 1
        elif word == 'END' and self._depth:
            self._depth -= 1
        self._before = word


class _MariaDBBlocks:
    """Semicolons of a statement's own stand between BEGIN and END of what is stored."""

    def __init__(self) -> None:
        self._kind = ''
        self._first = ''
        self._depth = 0
        self._before = ''

    @property
    def are_closed(self) -> bool:
        return self._depth <= 0

    def see(self, token: Any) -> None:
        word = token.text.upper() if _is_word(token) else ''
        before, self._before = self._before, word
        if not self._first:
            self._first = word
        elif self._first == 'BEGIN' and before == 'BEGIN' and word == 'NOT':
            self._kind, self._depth = 'BLOCK', 1  # BEGIN NOT ATOMIC, of MariaDB
        elif not self._kind and self._first in ('CREATE', 'ALTER') and word in _STORED | _OTHERS:
            self._kind = word
        if self._kind not in _STORED:
            return
        if word == 'BEGIN' or (word == 'CASE' and before != 'END'):
            self._depth += 1
        elif word == 'END' or (before == 'END' and word in _CLOSED_BY_NAME):
            # END IF closes what was not counted.
            self._depth += -1 if word == 'END' else 1


_STORED = frozenset({'PROCEDURE', 'FUNCTION', 'TRIGGER', 'EVENT', 'PACKAGE', 'BLOCK'})
_OTHERS = frozenset({'TABLE', 'VIEW', 'INDEX', 'DATABASE', 'SCHEMA', 'USER', 'ROLE', 'SEQUENCE', 'SERVER'})
_CLOSED_BY_NAME = frozenset({'IF', 'LOOP', 'WHILE', 'REPEAT', 'FOR'})
_BLOCKS: dict[str, Callable[[], Any]] = {
    'postgresql': _PostgresBlocks,
    'mysql': _MariaDBBlocks,
    'mariadb': _MariaDBBlocks,
}


def _line_of(error: Exception, text: str) -> int:
    """Sqlglot says it in words: the end is all that is known where it does not."""
    cause = str(error.__cause__ or error)
    number = re.search(r':(\d+):\d+', cause)
    return int(number.group(1)) if number else text.count('\n') + 1


def _first_line(error: Exception) -> str:
    return str(error.__cause__ or error).strip().splitlines()[0]
