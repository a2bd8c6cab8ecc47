"""The options, all ``tgext.evolve.*``: their names, defaults and what is a good value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from .errors import OptionError

PREFIX = 'tgext.evolve.'

#: Shorter secrets can be guessed.
SHORTEST_SECRET = 20

#: What tgext.pluggable passes on to every pluggable, besides ``plug_*``.
PLUGGABLE_OPTIONS = frozenset({'appid', 'global_models', 'global_helpers', 'rename_tables', 'rename_models'})


def _wrong(name: str, value: Any, expected: str) -> OptionError:
    return OptionError(f'{PREFIX}{name} = {value!r}', place='the options of tgext.evolve', remedy=f'Use {expected}.')


def _boolean(name: str, value: Any) -> bool:
    """The words that TurboGears itself takes for true and false in an ini file."""
    word = str(value).strip().lower()
    if word in ('true', 'yes', 'on', 'y', 't', '1'):
        return True
    if word in ('false', 'no', 'off', 'n', 'f', '0'):
        return False
    raise _wrong(name, value, 'true or false')


def _seconds(minimum: float, *, or_zero: bool = False) -> Callable[[str, Any], float]:
    def coerce(name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float('nan')
        if (or_zero and number == 0) or minimum <= number <= 86_400 * 365:
            return number
        zero = ', or 0' if or_zero else ''
        raise _wrong(name, value, f'a number of seconds, at least {minimum:g}{zero}')

    return coerce


def _count(name: str, value: Any) -> int:
    try:
        number = int(str(value).strip())
    except ValueError:
        number = 0
    if number < 1:
        raise _wrong(name, value, 'a whole number, at least 1')
    return number


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def coerce(name: str, value: Any) -> str:
        word = str(value).strip().lower()
        if word not in choices:
            raise _wrong(name, value, f'one of: {", ".join(choices)}')
        return word

    return coerce


def _text(name: str, value: Any) -> str:
    return str(value).strip() if value is not None else ''


def _namespace(name: str, value: Any) -> str:
    text = _text(name, value)
    if len(text) > 200 or not text.isprintable():
        raise _wrong(name, value, 'at most 200 printable characters')
    return text


def _retry_after(name: str, value: Any) -> int | None:
    if value is None or str(value).strip().lower() == 'auto':
        return None
    try:
        return _count(name, value)
    except OptionError:
        raise _wrong(name, value, 'auto, or a whole number of seconds, at least 1') from None


def _bypass(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list | tuple | set | frozenset | None):
        raise _wrong(name, value, 'a list of path prefixes such as /webhooks')
    prefixes = []
    for prefix in value or ():
        segments = str(prefix or '').strip().strip('/').split('/')
        # A comma is taken for a separator that is none here: it would never match anything.
        if any(segment in ('', '.', '..') or ',' in segment for segment in segments):
            raise _wrong(name, prefix, 'path prefixes such as /webhooks, separated by white space')
        prefixes.append('/' + '/'.join(segments))
    return tuple(prefixes)


def _path(name: str, value: Any) -> str:
    text = _text(name, value).rstrip('/')
    if text and (not text.startswith('/') or '//' in text or not text.isprintable()):
        raise _wrong(name, value, 'a path that begins with /, or nothing for no health pages')
    return text


def _word(name: str, value: Any) -> str:
    text = _text(name, value)
    if not text or not text.isprintable():
        raise _wrong(name, value, 'the name of a permission')
    return text


def _secret(name: str, value: Any) -> str:
    """Neither the value nor its length is ever told."""
    text = _text(name, value)
    if text and (len(text) < SHORTEST_SECRET or not text.isprintable()):
        raise OptionError(
            f'{PREFIX}{name} cannot be used as a secret (it is not shown here)',
            place='the options of tgext.evolve',
            remedy=f'Use at least {SHORTEST_SECRET} printable characters on one line, for example what '
            f"python -c 'import secrets; print(secrets.token_urlsafe())' prints; or nothing for no bypass.",
        )
    return text


def _line(name: str, value: Any) -> str:
    return ' '.join(_text(name, value).split())


def _page_file(name: str, value: Any) -> str:
    """Read here once, so that a file that is missing is known before anybody needs it."""
    text = str(value) if isinstance(value, Path) else _text(name, value)
    if text:
        page_of(text, name)
    return text


def page_of(page_file: str, name: str = 'page_file') -> str:
    """The HTML of an application's own maintenance page.

    :param page_file: a path, or ``package:relative/path``.
    :raises OptionError: when it cannot be read.
    """
    package, colon, relative = page_file.partition(':')
    try:
        if colon and all(part.isidentifier() for part in package.split('.')):
            return files(package).joinpath(relative).read_text('utf-8')
        return Path(page_file).read_text('utf-8')
    except (OSError, UnicodeError, ImportError, TypeError, ValueError) as error:
        raise OptionError(
            f'{PREFIX}{name} = {page_file!r} cannot be read: {error}',
            place='the options of tgext.evolve',
            remedy='Use the path of an HTML file in UTF-8 (in an ini %(here)s/maintenance.html), '
            'or package:relative/path for one inside of a package.',
        ) from error


@dataclass(frozen=True)
class Options:
    """The options of one application, coerced. Times are in seconds."""

    #: false: nothing is set up, the gate is open. For test suites.
    enabled: bool = True
    #: ``background``: in a thread, while answering 503. ``blocking``: before the application is returned; a failure or
    #: an absent database raises, unless ``on_failure = open``. ``wait``: never run here, stay closed until another
    #: process has: ``gearbox evolve run`` in the job of a deployment.
    mode: str = 'background'
    #: Applications that share a database keep apart by it.
    namespace: str = ''
    #: Where lease and history are kept. ``auto``: the database of the application, SQLAlchemy's where it has both;
    #: ``sqlalchemy`` or ``ming`` says which; or the URL of a database of its own.
    store: str = 'auto'
    #: Seconds after which a dead holder is replaced. It stands in the database, so processes with different ones agree.
    lease: float = 10.0
    #: Seconds between looks while waiting, more or less: not all processes look at once.
    poll: float = 0.5
    #: Seconds between looks after opening; 0: never. A process of an older release closes while a newer one evolves the
    #: data, and a newer one announces itself for this long.
    watch: float = 5.0
    #: ``open``: serve in spite of a failed evolution.
    on_failure: str = 'closed'
    #: What happens when the history knows evolutions that this release does not.
    unknown: str = 'warn'
    #: How often an evolution is tried in all, by itself.
    max_attempts: int = 5
    #: Seconds before the second attempt, doubled for each further one.
    retry_delay: float = 5.0
    #: Seconds in the header Retry-After. ``auto``: from measured progress, else 10.
    retry_after: int | None = None
    #: Paths that are never closed: these, and all below them by whole segments.
    bypass: tuple[str, ...] = ()
    #: ``live``, ``ready`` and ``status`` are answered below it. Empty: none, and the page reloads by a header.
    health_path: str = '/_evolve'
    #: true: also evolutions that installed distributions offer through the entry-point group
    #: ``tgext.evolve.evolutions``.
    discover: bool = False
    #: Who sees the dashboard.
    permission: str = 'manage'
    #: Lets an operator pass the closed gate: entered at ``/_evolve/enter``, it is good for eight hours in that browser.
    bypass_secret: str = field(default='', repr=False)
    #: The heading of the maintenance page, instead of its own words.
    page_title: str = ''
    #: What the maintenance page says below it, instead of its own words.
    page_text: str = ''
    #: An HTML page of your own, instead of the whole maintenance page.
    page_file: str = ''
    #: true: the public may read ids and messages of evolutions.
    page_details: bool = False

    @classmethod
    def of(cls, conf: Mapping[str, Any], *, package_name: str) -> Options:
        """Read them from an application's configuration.

        :raises OptionError: naming an option that is unknown or has a bad value.
        """
        given = {key[len(PREFIX) :]: value for key, value in conf.items() if key.startswith(PREFIX)}
        given.pop('evolutions', None)
        check_names(given)
        options = cls(**{name: COERCE[name](name, value) for name, value in given.items()})
        if not options.namespace:
            options = cls(**{**vars(options), 'namespace': package_name})
        if options.poll > options.lease:
            raise _wrong('poll', options.poll, f'at most the lease ({options.lease:g} seconds)')
        if options.bypass_secret and not options.health_path:
            raise OptionError(
                f'{PREFIX}bypass_secret needs {PREFIX}health_path, below which it is entered',
                place='the options of tgext.evolve',
                remedy='Leave health_path at its default, or take bypass_secret away.',
            )
        return options


COERCE: dict[str, Callable[[str, Any], Any]] = {
    'enabled': _boolean,
    'mode': _choice('background', 'blocking', 'wait'),
    'namespace': _namespace,
    'store': _text,
    'lease': _seconds(1),
    'poll': _seconds(0.01),
    'watch': _seconds(0.1, or_zero=True),
    'on_failure': _choice('closed', 'open'),
    'unknown': _choice('ignore', 'warn', 'refuse'),
    'max_attempts': _count,
    'retry_delay': _seconds(0, or_zero=True),
    'retry_after': _retry_after,
    'bypass': _bypass,
    'health_path': _path,
    'discover': _boolean,
    'permission': _word,
    'bypass_secret': _secret,
    'page_title': _line,
    'page_text': _text,
    'page_file': _page_file,
    'page_details': _boolean,
}
assert set(COERCE) == {field.name for field in fields(Options)}


def check_names(names: Mapping[str, Any]) -> None:
    """:raises OptionError: naming the first option that tgext.evolve does not have."""
    for name in names:
        if name not in COERCE:
            import difflib

            close = difflib.get_close_matches(name, [*COERCE, 'evolutions'], n=1)
            remedy = f'Did you mean {PREFIX}{close[0]}?' if close else f'There are: {", ".join(COERCE)}.'
            raise OptionError(f'there is no option {PREFIX}{name}', place='the options of tgext.evolve', remedy=remedy)
