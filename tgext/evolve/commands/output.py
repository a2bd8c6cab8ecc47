"""Where the answers go: a terminal, plain text for pipes and logs, or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .documents import Document
from .words import NOTHING

if TYPE_CHECKING:
    from rich.live import Live

    from .terminal import Terminal

MISSING = (
    "rich is not installed, so this is plain text. For tables and live progress: pip install 'tgext.evolve[commands]'"
)


class Output:
    """Says each thing once, in the one form that was asked for.

    Plain text is for ``grep`` and logs: one line per thing, in columns, never wrapped, cut or coloured.
    """

    def __init__(self, *, json: bool):
        self.json = json
        self.terminal: Terminal | None = None
        if not json and sys.stdout.isatty() and os.environ.get('TERM') != 'dumb':
            try:
                from .terminal import Terminal
            except ImportError:
                print(MISSING, file=sys.stderr)
            else:
                self.terminal = Terminal()

    def document(self, document: Document) -> None:
        """The one JSON document of this command, or of this look."""
        print(json.dumps(document, default=str), flush=True)

    def lines(self, lines: Sequence[str], document: Document) -> None:
        if self.json:
            self.document(document)
            return
        for line in lines:
            if self.terminal is not None:
                self.terminal.line(line)
            else:
                print(line, flush=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, states: int | None = None) -> None:
        """:param states: the column that holds states, which have colours."""
        if self.terminal is not None:
            self.terminal.table(head, rows, states)
            return
        text = [[cell or NOTHING for cell in row] for row in (head, *rows)]
        widths = [max(len(row[column]) for row in text) for column in range(len(head) - 1)]
        for row in text:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            print('  '.join([*cells, row[-1]]), flush=True)

    def live(self) -> Live | None:
        """What can be drawn anew again and again; None where there is no terminal."""
        return self.terminal.live() if self.terminal is not None else None

    def note(self, line: str) -> None:
        """For people only, beside the answer."""
        print(' '.join(line.split()), file=sys.stderr, flush=True)

    def wrong(self, line: str, document: Document) -> None:
        if self.json:
            self.document(document)
        print(f'gearbox evolve: {line}', file=sys.stderr, flush=True)
