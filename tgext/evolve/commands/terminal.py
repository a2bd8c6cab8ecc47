"""Tables and live progress at a terminal, by rich. NO_COLOR is honoured by rich itself."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .words import NOTHING

_STYLES = {
    'done': 'green',
    'stamped': 'green dim',
    'imported': 'green dim',
    'applied': 'green dim',
    'running': 'cyan bold',
    'pending': 'yellow',
    'failed': 'red bold',
    'interrupted': 'red',
    'cancelled': 'magenta',
}

#: Columns that are short by themselves, and easier to read in one line.
_NARROW = frozenset({'STATE', 'ATTEMPT', 'NUMBER', 'ROWS', 'SERVING', 'TOOK', 'WHEN'})


class Terminal:
    def __init__(self, console: Console | None = None):
        self.console = console or Console(highlight=False)

    def line(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], states: int | None) -> None:
        self.console.print(self.tabulated(head, rows, states))

    def tabulated(self, head: Sequence[str], rows: Sequence[Sequence[str]], states: int | None) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style='bold')
        for name in head:
            # Folded, never cut: an id that cannot be copied is of no use.
            table.add_column(name.lower(), overflow='fold', no_wrap=name in _NARROW)
        for row in rows:
            cells = [Text('' if cell == NOTHING else cell) for cell in row]
            if states is not None:
                cells[states].stylize(_STYLES.get(row[states], ''))
            table.add_row(*cells)
        return table

    def picture(
        self,
        lines: Sequence[str],
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        states: int,
        fraction: float | None,
    ) -> RenderableType:
        """Everything that is drawn anew at each look."""
        parts: list[RenderableType] = [Text(line) for line in lines]
        parts.append(self.tabulated(head, rows, states))
        if fraction is not None:
            parts.append(ProgressBar(total=1.0, completed=fraction, width=min(60, self.console.width)))
        return Group(*parts)

    def live(self) -> Live:
        return Live(console=self.console, auto_refresh=False, vertical_overflow='visible')

    def progress(self) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn('{task.description}', markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn('{task.fields[about]}', markup=False),
            TimeElapsedColumn(),
            console=self.console,
        )
