"""A folder of SQL scripts: what their names and their headers say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SourceError

#: The databases that a variant may be for, each with the names that it is content with, the best one first.
VARIANTS = {
    'sqlite': ('sqlite',),
    'postgresql': ('postgresql',),
    'mysql': ('mysql',),
    'mariadb': ('mariadb', 'mysql'),
}
_KNOWN = frozenset(VARIANTS)

_NAME = re.compile(r'(?:V(?P<version>\d+(?:[._]\d+)*)|R)__(?P<title>[^.]+?)(?:\.(?P<variant>[^.]+))?\.sql', re.ASCII)

#: A line of a script's header that is for us.
_SAID = re.compile(r'\s*--\s*tgext\.evolve\s*:\s*(?P<key>[^=]*?)\s*=\s*(?P<value>.*?)\s*')
_MEANT = re.compile(r'\s*--\s*tgext\.evolve\b')
_COMMENT = re.compile(r'\s*(--.*)?')

Wrong = Callable[[str, str, str], SourceError]


@dataclass(frozen=True)
class ScriptFile:
    """One file by its name.

    :param version: its numbers; None: it is repeatable.
    :param variant: the database that it is for; None: for those that have none of their own.
    """

    path: Path
    version: tuple[int, ...] | None
    title: str
    variant: str | None

    @property
    def key(self) -> str:
        """What it is known by, however it is renamed: its version, or as a repeatable one its title."""
        return f'R__{self.title}' if self.version is None else '.'.join(map(str, self.version))

    @property
    def stem(self) -> str:
        name = self.path.name.removesuffix('.sql')
        return name if self.variant is None else name.removesuffix(f'.{self.variant}')


def version_of(text: str) -> tuple[int, ...]:
    """``1.2``, ``1_2``, ``01.02.0``: all the same version.

    :raises ValueError: it is none.
    """
    numbers = [int(number) for number in re.split('[._]', text)]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def files_in(folder: Path, wrong: Wrong) -> list[ScriptFile]:
    """All scripts in a folder; what looks like one and is none is an error, not something to be left out."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == '.sql' and not path.name.startswith('.') and path.is_file():
            found.append(_file(path, wrong))
    return found


def _file(path: Path, wrong: Wrong) -> ScriptFile:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise wrong(
            f'{path.name} is not named like a script',
            str(path),
            'Name it V<version>__<title>.sql or R__<title>.sql (a capital V or R, two underscores, no dot in the '
            'title), or V<version>__<title>.<database>.sql; or move it out of this folder.',
        )
    variant = match['variant']
    if variant is not None and variant not in _KNOWN:
        raise wrong(
            f'{path.name} is for {variant!r}, and there is no such database',
            str(path),
            f'Use one of {", ".join(sorted(_KNOWN))}, or a title without dots.',
        )
    version = None if match['version'] is None else version_of(match['version'])
    return ScriptFile(path, version, match['title'], variant)


def chosen(files: Iterable[ScriptFile], backend: str, wrong: Wrong) -> list[ScriptFile]:
    """One file of each key, for this database: versions in order, then what is repeatable by title."""
    by_key: dict[str, list[ScriptFile]] = {}
    for file in files:
        by_key.setdefault(file.key, []).append(file)
    found = [_variant(key, those, backend, wrong) for key, those in by_key.items()]
    return sorted(found, key=lambda file: (file.version is None, file.version or (), file.title))


def _variant(key: str, files: list[ScriptFile], backend: str, wrong: Wrong) -> ScriptFile:
    by_variant: dict[str | None, ScriptFile] = {}
    for file in files:
        other = next((each for each in files if each.stem != file.stem), by_variant.get(file.variant))
        if other is not None:
            raise wrong(
                f'two scripts have the version {key}: {file.path.name} and {other.path.name}',
                str(file.path.parent),
                'Give the one that has not run anywhere another version (variants for databases have equal titles).',
            )
        by_variant[file.variant] = file
    for variant in (*VARIANTS[backend], None):
        if variant in by_variant:
            return by_variant[variant]
    raise wrong(
        f'there is no {files[0].stem} for {backend}, only {", ".join(file.path.name for file in files)}',
        str(files[0].path.parent),
        f'Add {files[0].stem}.{backend}.sql (it may be empty), or {files[0].stem}.sql for all others.',
    )


def text_of(path: Path, wrong: Wrong) -> str:
    """The text of a script, with the ends of its lines as they are here, however it was checked out."""
    try:
        return path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise wrong(f'{path.name} cannot be read: {error.strerror}', str(path), 'Make it readable.') from error
    except UnicodeDecodeError as error:
        raise wrong(f'{path.name} is not in UTF-8: {error}', str(path), 'Save it as UTF-8.') from None


# -- the header

_BOOLEANS = {'true': True, 'false': False}
_READ: dict[str, Callable[[str], Any]] = {
    'depends_on': lambda value: tuple(id for id in (part.strip() for part in value.split(',')) if id),
    'serving': str,
    'description': str,
    'transactional': lambda value: _BOOLEANS[value.lower()],
    'rerunnable': lambda value: _BOOLEANS[value.lower()],
}


def said(text: str, path: Path, wrong: Wrong) -> dict[str, Any]:
    """What ``-- tgext.evolve: key = value`` lines say, before the first line that is no comment."""
    found: dict[str, Any] = {}
    in_header = True
    for number, line in enumerate(text.splitlines(), 1):
        in_header = in_header and _COMMENT.fullmatch(line) is not None
        if _MEANT.match(line) is None:
            continue
        place = f'{path}, line {number}'
        if not in_header:
            raise wrong(f'{line.strip()!r} stands after the first statement', place, 'Move it to the top of the file.')
        match = _SAID.fullmatch(line)
        key = match['key'] if match else ''
        read = _READ.get(key)
        if match is None or read is None or key in found:
            raise wrong(
                f'{line.strip()!r} says nothing that is understood',
                place,
                f'Write -- tgext.evolve: KEY = VALUE, once each, with one of {", ".join(_READ)}.',
            )
        try:
            found[key] = read(match['value'])
        except KeyError:
            raise wrong(f'{key} = {match["value"]!r}', place, 'Use true or false.') from None
    return found
