"""The page on performance, written from the figures of a run: see ``script/bench``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.batches import BATCH
from benchmarks.stacks import NAMES as STACKS
from tests import pages
from tests.pages import NAMES, definitions, table, title
from tgext.evolve.options import Options

Figures = Mapping[str, Any]

#: Processes of which is said what the database would see of them.
MANY = 5_000

#: Seconds of being on the way in which a crowd of processes is still one crowd.
SLOPE = 1.25


@dataclass(frozen=True)
class Goal:
    """Something that was promised, and what came of it.

    :param way: what stands in the way, for when it is missed.
    """

    name: str
    wanted: str
    found: str
    met: bool
    way: str = ''


def page(figures: Figures) -> str:
    """The whole page, in reStructuredText."""
    reached = list(goals(figures))
    return pages.page(
        [
            title('Performance', '='),
            'What tgext.evolve costs, beside 0.0.5 on the last stack that runs it. Everything is measured in one run, '
            'pair by pair and by turns, and written by ``script/bench``: nothing on this page is typed by hand. Each '
            'figure is a median, with the bounds of its 95 % confidence, or the extremes where it says so.',
            '**These figures are from the quick form and mean nothing**: it only shows that everything works.'
            if figures.get('quick')
            else '',
            title('Goals', '-'),
            _goals(reached),
            *_ways(reached),
            *(part for name, write in SECTIONS.items() if name in figures for part in write(figures[name], figures)),
            title('How to repeat it', '-'),
            '::\n\n    script/bench',
            'It makes two virtual environments, starts throwaway database servers, and takes about '
            f'{_minutes(figures)} minutes besides on two cores. ``script/bench --only requests`` measures one part; '
            '``--help`` has the rest. ``.bench/figures.json`` has all figures, for machines.',
            title('The machine', '-'),
            '\n'.join(f'- {line}' for line in [*figures['machine'], *_versions(figures)]),
        ]
    )


def _minutes(figures: Figures) -> int:
    return max(1, round(sum(figures.get('took', {}).values()) / 60))


def _versions(figures: Figures) -> list[str]:
    return [
        f'{STACKS[name]}: ' + ', '.join(f'{package} {version}' for package, version in versions.items())
        for name, versions in figures['versions'].items()
    ]


# -- goals


def goals(figures: Figures) -> Iterator[Goal]:
    """Those whose figures are there."""
    if 'requests' in figures:
        yield from _request_goals(figures['requests'], _profile(figures, 'trapped'))
    if 'sqlite ours' in figures.get('starting', {}):
        yield from _starting_goals(figures['starting'], _profile(figures, 'starting'))
    if 'recovery' in figures:
        yield _recovery_goal(figures['recovery'])
    if figures.get('crowd'):
        errors = sum(each['errors'] for by_number in figures['crowd'].values() for each in by_number.values())
        yield Goal('A crowd that starts at once sees no errors', '0', str(errors), errors == 0)
    if 'weight' in figures:
        unused = figures['weight']['ours']['unused']
        found = ', '.join(unused) or 'none'
        yield Goal('Plugging imports no library that is not used', 'none', found, not unused)


def _request_goals(requests: Figures, profile: str) -> Iterator[Goal]:
    finished = requests['finished']['ours']
    added, share = finished['added'], finished['added share']
    yield Goal('A finished gate adds to a request', '<= 1 us', f'{added["median"]:.2f} us', added['median'] <= 1.0)
    yield Goal(
        '... at most, by the upper confidence bound', '<= 2 %', f'{share["high"]:.1%}', share['high'] <= 0.02, _NOISE
    )
    closed = requests['closed']['ours']
    ratio = closed['ratio']['median']
    yield Goal('A closed gate answers, times the rate of not plugged', '>= 8', f'{ratio:.1f}', ratio >= 8)
    statements = closed['statements']
    yield Goal('A 503 costs statements', '0', f'{statements:g}', statements == 0)
    ratio = requests['closed and trapped']['ours']['ratio']['median']
    yield Goal(
        'The same when ErrorController renders the 503', '>= 0.8', f'{ratio:.2f}', ratio >= 0.8, _TRAPPED + profile
    )


_NOISE = (
    'An open gate costs one attribute check and one comparison of the path. Where the median says so and its '
    'bound does not, the machine was too busy for a finer bound.'
)

_TRAPPED = (
    "TurboGears' ErrorPage renders the page by a second pass through the application, which by itself costs what a "
    'request costs that is not plugged; before it, it copies the request and makes another response. The '
    'measured application has the cheapest page there is, which dispatches less deep than ``/error/document``: with '
    'templates both sides cost more, and the ratio comes closer to 1. Where ErrorController does not trap the 503, '
    'none of this is paid.'
)


def _profile(figures: Figures, name: str) -> str:
    """A sentence on whose code the time is spent in."""
    shares = figures.get('profiles', {}).get(name, [])
    told = ', '.join(f'{whose} {share:.0%}' for whose, share in shares[:8])
    return f' Its profile, by the own time of each: {told}.' if told else ''


def _starting_goals(starting: Figures, profile: str) -> Iterator[Goal]:
    ours = starting['sqlite ours']
    statements = max(each['statements'] for by_size in _ours(starting).values() for each in by_size.values())
    yield Goal('Starting with nothing pending takes statements', '1', str(statements), statements == 1)
    sizes = sorted(map(int, ours))
    last = ours[str(sizes[-1])]['added']['median']
    if sizes[-1] == 10_000:
        yield Goal(
            '... and with 10,000 evolutions, on SQLite', '< 150 ms', f'{last:.0f} ms', last < 150, _STARTING + profile
        )
    if len(sizes) > 2:
        early, late = (
            (ours[str(b)]['added']['median'] - ours[str(a)]['added']['median']) / (b - a) * 1000
            for a, b in (sizes[:2], sizes[-2:])
        )
        yield Goal(
            '... a thousand more cost what a thousand did',
            f'<= {SLOPE:g} times',
            f'{late / early:.2f}' if early > 0 else 'too little to tell',
            early <= 0 or late <= SLOPE * early,
            _STARTING + profile,
        )


_STARTING = (
    'The attributes of each evolution are checked, each row of the history is read and made an object, and both are '
    'held against each other. All of it is linear; but Python makes the objects, and ever fewer of them fit into the '
    'caches of the processor.'
)


def _ours(by_key: Figures) -> dict[str, Any]:
    return {key: found for key, found in by_key.items() if key.endswith(' ours')}


def _recovery_goal(recovery: Figures) -> Goal:
    late = max(each['largest'] - float(lease) for by_lease in recovery.values() for lease, each in by_lease.items())
    promised = Options().poll + 1
    return Goal(
        'A killed holder is replaced, after its lease, within', f'<= {promised:g} s', f'{late:.1f} s', late <= promised
    )


def _goals(reached: Sequence[Goal]) -> str:
    rows = [[goal.name, goal.wanted, goal.found, 'yes' if goal.met else '**no**'] for goal in reached]
    return table(['', 'goal', 'measured', 'met'], rows)


def _ways(reached: Sequence[Goal]) -> list[str]:
    ways = {goal.name.removeprefix('... '): goal.way for goal in reached if goal.way and not goal.met}
    return [title('What stands in the way', '-'), definitions(ways)] if ways else []


# -- one section for each part


def _requests(requests: Figures, figures: Figures) -> Iterator[str]:
    yield title('What a request costs', '-')
    yield (
        'The same minimal application with one controller, called by raw WSGI in process, and beside it in the same '
        'process the same one that is not plugged. The seconds are those of the processor in the thread that serves: '
        'what else the machine does does not count. What a finished gate adds is less than what two equal applications '
        'differ by for how their objects lie in memory: it may come out below nothing.'
    )
    rows = [
        [
            f'{state}, {STACKS[stack]}',
            f'{each["rate"]["median"]:,.0f}',
            f'{each["bare rate"]["median"]:,.0f}',
            _bounds(each['ratio'], '.2f'),
            f'{each["added"]["median"]:.2f}' if state == 'finished' else '',
            f'{each["statements"]:g}',
        ]
        for state, by_stack in requests.items()
        for stack, each in by_stack.items()
    ]
    yield table(['', 'per second', 'not plugged', 'ratio', 'us added', 'statements'], rows)


def _bounds(spread: Figures, form: str) -> str:
    return f'{spread["median"]:{form}} ({spread["low"]:{form}}-{spread["high"]:{form}})'


def _extremes(spread: Figures, form: str) -> str:
    return f'{spread["median"]:{form}} ({spread["smallest"]:{form}}-{spread["largest"]:{form}})'


def _starting(starting: Figures, figures: Figures) -> Iterator[str]:
    yield title('What a start costs', '-')
    yield (
        'Everything is done already. Milliseconds that the creation of the application takes longer than that of the '
        'same one that is not plugged, until it serves; by the number of evolutions in plan and history. 0.0.5 keeps '
        'one row, whatever is done, and is done when its thread has taken its lock, looked, and let go.'
    )
    sizes = sorted({size for by_size in starting.values() for size in by_size}, key=int)
    rows = []
    for key, by_size in starting.items():
        database, _, stack = key.partition(' ')
        cells = [_bounds(by_size[size]['added'], '.1f') if size in by_size else '' for size in sizes]
        statements = max(each['statements'] for each in by_size.values())
        rows.append([f'{NAMES[database]}, {STACKS[stack]}', *cells, str(statements)])
    yield table(['', *(f'{int(size):,}' for size in sizes), 'statements'], rows)


def _weight(weight: Figures, figures: Figures) -> Iterator[str]:
    yield title('What plugging adds to a process', '-')
    yield (
        'A whole process, from its imports to its first answer, against the same one that is not plugged: on SQLite, '
        'with ten evolutions that are done.'
    )
    rows = [
        [
            STACKS[stack],
            _bounds(each['cpu'], '.0f'),
            _bounds(each['memory'], '.1f'),
            f'{each["bare memory"]["median"]:.0f}',
            str(each['modules']),
        ]
        for stack, each in weight.items()
    ]
    yield table(['', 'CPU ms', 'MB of memory', 'MB not plugged', 'modules'], rows)


def _opening(opening: Figures, figures: Figures) -> Iterator[str]:
    yield title('How soon waiting processes open', '-')
    yield (
        'Seconds from the commit of the last evolution to the first 200 in each of so many processes that wait, with '
        f'the default poll of {Options().poll:g} s: median and extremes. On the average half a poll passes.'
    )
    yield _by_store(opening, lambda each: _extremes(each, '.2f'), 'processes')


def _by_store(found: Figures, cell: Any, unit: str) -> str:
    columns = sorted({column for each in found.values() for column in each}, key=float)
    rows = [
        [NAMES[store], *(cell(each[column]) if column in each else '' for column in columns)]
        for store, each in found.items()
    ]
    return table(['', *(f'{float(column):,g} {unit}' for column in columns)], rows)


def _load(load: Figures, figures: Figures) -> Iterator[str]:
    yield title('What a waiting process costs', '-')
    yield (
        'Per second, with the default poll: statements (commands on MongoDB), new connections, and milliseconds of the '
        'processor; by the number of evolutions in the history.'
    )
    rows = [
        [
            f'{NAMES[store]}, {int(size):,}',
            f'{each["statements"]:.1f}',
            f'{each["connections"]:.1f}',
            f'{each["cpu"] * 1000:.0f}',
        ]
        for store, by_size in load.items()
        for size, each in by_size.items()
    ]
    yield table(['', 'statements', 'connections', 'CPU ms'], rows)


def _recovery(recovery: Figures, figures: Figures) -> Iterator[str]:
    yield title('How soon a killed holder is replaced', '-')
    yield (
        'Seconds from kill -9 of the process that runs an evolution to the first 200 of one that waits, by the lease: '
        'median and extremes. The killed evolution has run again by then.'
    )
    yield _by_store(recovery, lambda each: _extremes(each, '.1f'), 's')


def _crowd(crowd: Figures, figures: Figures) -> Iterator[str]:
    yield title('When many start at once', '-')
    yield (
        'So many processes, which all see one evolution that is pending, are let go at the very same moment. Seconds '
        'until all of them are open; errors in their logs; statements and connections as the server counts them, from '
        'the creation of the applications on, also those that the driver sends with each connection.'
    )
    rows = [
        [
            f'{NAMES[store]}, {number}',
            f'{each["seconds"]:.1f}',
            str(each['errors']),
            f'{each["statements"]:,} ({each["statements"] / int(number):.0f})',
            f'{each["connections"]:,} ({each["connections"] / int(number):.0f})',
        ]
        for store, by_number in crowd.items()
        for number, each in by_number.items()
    ]
    yield table(['', 'seconds', 'errors', 'statements (each)', 'connections (each)'], rows)
    yield from _many(crowd, figures.get('load', {}))


def _many(crowd: Figures, load: Figures) -> Iterator[str]:
    """On paper: what nobody can start here."""
    said = []
    for store, by_number in crowd.items():
        number = max(by_number, key=int)
        waits = next(iter(load.get(store, {}).values()), None)
        each = by_number[number]['statements'] / int(number)
        text = f'{NAMES[store]} would see {each * MANY:,.0f} statements until all are open'
        if waits is not None:
            text += (
                f', and while they wait {waits["statements"] * MANY:,.0f} statements on '
                f'{waits["connections"] * MANY:,.0f} short connections per second'
            )
        said.append(text)
    if said:
        yield (
            f'On paper, for {MANY:,} processes at once, from the largest crowd: {"; ".join(said)}. None is held '
            'open between two looks, but so many connections per second are more than most servers take: such a fleet '
            'wants a pooler or a longer ``tgext.evolve.poll``, which divides both; with 5 s it is a tenth.'
        )


def _batches(batches: Figures, figures: Figures) -> Iterator[str]:
    yield title('Batches', '-')
    yield (
        f'{batches["rows"]:,} rows in batches of {BATCH}, against the loop that one writes by hand, with a checkpoint '
        'in the transaction of each batch. With so few rows the start of a run counts (lease, history, counting), and '
        'by hand there is none: ``docs/batches.rst`` has a million of them, by ``python -m benchmarks.batches``.'
    )
    rows = []
    for store, by_way in batches['stores'].items():
        hand = [each['seconds'] for each in by_way['by hand']]
        for way, each in by_way.items():
            ratios = sorted(one['seconds'] / base for one, base in zip(each, hand, strict=True))
            seconds = sorted(one['seconds'] for one in each)
            middle = len(ratios) // 2
            rows.append(
                [
                    f'{NAMES[store]}, {way}',
                    f'{batches["rows"] / seconds[middle]:,.0f}',
                    f'{ratios[middle]:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})',
                ]
            )
    yield table(['', 'rows per second', 'time / by hand'], rows)


#: In the order of the page.
SECTIONS = {
    'requests': _requests,
    'starting': _starting,
    'weight': _weight,
    'opening': _opening,
    'load': _load,
    'recovery': _recovery,
    'crowd': _crowd,
    'batches': _batches,
}
