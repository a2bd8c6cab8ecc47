"""``create``: a new evolution with its test, where the application keeps them."""

from __future__ import annotations

import argparse
import importlib
import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

from .. import failure
from ..component import REGISTERED, evolutions_list
from ..options import PREFIX
from ..plan import ID_LENGTH
from .application import Application
from .documents import document
from .exits import Exit, Problem
from .output import Output


@dataclass(frozen=True)
class Place:
    """Where a new module goes.

    :param package: its dotted name.
    :param entry: what has to be added to the ``evolutions`` option; ``{module}`` stands for the new module. Empty
        when it is found by itself.
    :param where: what has to be edited for that.
    """

    package: str
    directory: Path
    entry: str = ''
    where: str = 'the evolutions option (config/app_cfg.py)'
    prefix: str = ''


def create(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    conf = application.conf
    if opts.package is not None:
        return _create_package(opts.package or _root(conf).__name__, opts, output)
    if opts.name is None:
        raise Problem(Exit.USAGE, 'usage', 'it needs a NAME', 'Use a few words: gearbox evolve create backfill slugs')
    root = _root(conf)
    name = _Name.of(opts.name)
    place = _named(opts.into) if opts.into else _place(conf, root)
    module = f'{place.package}.{place.prefix}{name.module}'
    tests = _tests(root)
    made = {place.directory / f'{place.prefix}{name.module}.py': '', tests / f'test_{name.module}.py': 'test_'}
    for path in made:
        if path.exists():
            raise Problem(
                Exit.CANNOT_CREATE, 'exists', f'there is {path} already', 'Choose another name; nothing was written.'
            )
    if application.evolver is not None and name.id in application.evolver.plan:
        raise Problem(Exit.CANNOT_CREATE, 'exists', f'there is an evolution {name.id!r} already', 'Choose another name')
    flavour = 'sqlalchemy' if getattr(conf.get('tg.app_globals'), 'sa_engine', None) is not None else 'ming'
    values = {
        'id': name.id,
        'sentence': name.sentence,
        'class_name': name.of_class,
        'module': module,
        'module_name': name.module,
        'model': getattr(conf.get('model'), '__name__', None) or f'{root.__name__}.model',
    }
    try:
        for directory in (place.directory, tests):
            _make_package(directory)
        for path, kind in made.items():
            skeleton = (files(__package__) / 'skeletons' / f'{kind}{flavour}.txt').read_text('utf-8')
            with open(path, 'x', encoding='utf-8') as file:
                file.write(Template(skeleton).substitute(values))
    except OSError as error:
        raise Problem(
            Exit.CANNOT_CREATE, 'cannot-write', f'it cannot be written: {error}', 'Mend that, or say --into PACKAGE.'
        ) from error
    entry = place.entry.format(module=module)
    lines = [f'created {path}' for path in made]
    lines.append(
        f'add to {place.where}: {entry}'
        if entry
        else f'it is found by itself, as {name.id}, by the next process that starts'
    )
    lines.append('until it is written it raises: the test says so, and no gate opens over it')
    parts: dict[str, Any] = {'id': name.id, 'module': module, 'files': [str(path) for path in made], 'add': entry}
    output.lines(lines, document('create', **parts))
    return Exit.DONE


def _create_package(package: str, opts: argparse.Namespace, output: Output) -> Exit:
    """The module ``evolve`` of a package, as stucco_evolution's template made it; or the next script in it."""
    if opts.name is not None or opts.into is not None:
        raise Problem(Exit.USAGE, 'usage', '--package takes neither NAME nor --into', 'Leave them out.')
    parent = _named(package).directory
    directory = parent / 'evolve'
    values = {'package': package, 'version': 0}
    made = {'__init__.py': 'package_init', 'create.py': 'package_create'}
    if directory.exists():
        values['version'] = _version_of(package) + 1
        made = {f'evolve{values["version"]}.py': 'package_evolve'}
    try:
        directory.mkdir(exist_ok=True)
        for file_name, skeleton in made.items():
            text = (files(__package__) / 'skeletons' / f'{skeleton}.txt').read_text('utf-8')
            with open(directory / file_name, 'x', encoding='utf-8') as file:
                file.write(Template(text).substitute(values))
    except OSError as error:
        raise Problem(
            Exit.CANNOT_CREATE, 'cannot-write', f'it cannot be written: {error}', 'Nothing there is overwritten.'
        ) from error
    paths = [str(directory / file_name) for file_name in made]
    lines = [f'created {path}' for path in paths]
    if values['version']:
        add = f'VERSION = {values["version"]}'
        lines.append(
            f'when it is written, say {add} in {directory / "__init__.py"}, and have create.py make that version'
        )
    else:
        add = f'StuccoPackages({package!r})'
        lines.append(f'add to the evolutions option (config/app_cfg.py): {add}, from tgext.evolve.sources.stucco')
    parts: dict[str, Any] = {'id': None, 'module': f'{package}.evolve', 'files': paths, 'add': add}
    output.lines(lines, document('create', **parts))
    return Exit.DONE


def _version_of(package: str) -> int:
    from ..errors import SourceError
    from ..sources.stucco import evolve_module

    try:
        version: int = evolve_module(package).VERSION
        return version
    except SourceError as error:
        raise Problem(Exit.CANNOT_CREATE, 'no-package', f'{error.thing} (in {error.place})', error.remedy) from error


@dataclass(frozen=True)
class _Name:
    """The words that were typed, in each of the forms that they take."""

    id: str
    module: str
    of_class: str
    sentence: str

    @classmethod
    def of(cls, text: str) -> _Name:
        words = re.findall(r'[A-Za-z0-9]+', re.sub(r'(?<=[a-z0-9])(?=[A-Z])', ' ', text))
        if not any(word[0].isalpha() for word in words):
            raise Problem(
                Exit.USAGE, 'usage', f'{text!r} has no word to name anything by', 'Use a few words: backfill slugs'
            )
        dated = len(words) > 1 and re.fullmatch(r'\d{4}', words[0]) is not None
        said = [word for word in words if not (dated and word.isdigit())]
        if not dated:
            words = [*date.today().isoformat().split('-'), *words]
        id = '-'.join(words).lower()
        kind = ''.join(word[0].upper() + word[1:] for word in said)
        if not kind[0].isalpha() or keyword.iskeyword(kind):
            kind = f'E{kind}'
        if len(id) > ID_LENGTH // 2:
            raise Problem(Exit.USAGE, 'usage', f'{text!r} is too long for a name', 'Use a few words: backfill slugs')
        # A module name cannot begin with the digits of the date.
        return cls(id, 'e' + '_'.join(words).lower(), kind, ' '.join(said).capitalize())


def _root(conf: Any) -> ModuleType:
    package = conf.get('package')
    if not isinstance(package, ModuleType) or not getattr(package, '__file__', None):
        raise Problem(
            Exit.CANNOT_CREATE,
            'no-package',
            'the application does not say which package it is',
            "Set 'package' in its blueprint, or say --into PACKAGE.",
        )
    return package


def _place(conf: Any, root: ModuleType) -> Place:
    """Where the evolutions of the application's own package are, as far as its option tells."""
    beside: Place | None = None
    for module, is_named in _modules(conf):
        if module.__name__.partition('.')[0] != root.__name__.partition('.')[0]:
            continue  # of another distribution
        if is_named and getattr(module, '__path__', None) and module is not root:
            lists = isinstance(getattr(module, 'evolutions', None), list | tuple)
            return Place(
                module.__name__,
                Path(next(iter(module.__path__))),
                entry="'{module}'" if lists else '',
                where=f'the list {module.__name__}.evolutions' if lists else '',
            )
        parent, _, _ = module.__name__.rpartition('.')
        if beside is None and parent not in ('', root.__name__) and not getattr(module, '__path__', None):
            beside = Place(parent, Path(module.__file__ or '').parent, entry="'{module}'")
    if beside is not None:
        return beside
    directory = Path(root.__file__ or '').parent
    if (directory / 'evolutions.py').exists():
        # A package of that name would hide this module.
        return Place(root.__name__, directory, entry="'{module}'", prefix='evolution_')
    package = f'{root.__name__}.evolutions'
    return Place(package, directory / 'evolutions', entry=f"'{package}'")


def _modules(conf: Any) -> Iterator[tuple[ModuleType, bool]]:
    """The modules of the entries, and whether these are entries themselves."""
    for entry in [*evolutions_list(conf.get(f'{PREFIX}evolutions', ())), *conf.get(REGISTERED, ())]:
        if isinstance(entry, str):
            try:
                yield importlib.import_module(entry), True
                continue
            except ImportError:
                entry = sys.modules.get(entry.rpartition('.')[0])
        if isinstance(entry, ModuleType):
            yield entry, True
        elif entry is not None:
            kind = entry if isinstance(entry, type) else type(entry)
            module = sys.modules.get(kind.__module__)
            if module is not None:
                yield module, False


def _named(package: str) -> Place:
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise Problem(
            Exit.CANNOT_CREATE,
            'no-package',
            f'{package!r} cannot be imported: {failure.brief(error)}',
            'Make it first.',
        ) from error
    if not getattr(module, '__path__', None):
        raise Problem(Exit.CANNOT_CREATE, 'no-package', f'{package!r} is a module, not a package', 'Name a package.')
    return Place(package, Path(next(iter(module.__path__))), entry="'{module}'")


def _tests(root: ModuleType) -> Path:
    """The application's tests, beside its package or inside of it."""
    package = Path(root.__file__ or '').parent
    for directory in (package / 'tests', package.parent / 'tests'):
        if directory.is_dir():
            return directory
    return package / 'tests'


def _make_package(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir()
        (directory / '__init__.py').touch()
