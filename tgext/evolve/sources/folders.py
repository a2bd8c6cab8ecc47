"""Where a folder is that the ``evolutions`` option names."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import SourceError


def found(location: str, conf: Mapping[str, Any], wrong: Callable[[str, str], SourceError]) -> Path:
    """The folder that ``location`` means.

    :param location: a path, beside the ini file or the project's ``setup.py`` where it is relative, or
        ``package:folder``.
    :param wrong: makes the error, of what is wrong and the remedy.
    """
    package, colon, folder = location.partition(':')
    if colon and not os.path.isabs(location):
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError) as error:
            raise wrong(f'{location!r} cannot be found: {error}', 'Write package:folder.') from error
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not places:
            raise wrong(f'{location!r} cannot be found: there is no package {package!r}', 'Write package:folder.')
        tried = [Path(place) / folder for place in places]
    else:
        roots = [Path(str(conf['here']))] if conf.get('here') else []
        module = getattr(conf.get('package'), '__file__', None)
        if module:
            roots += [Path(module).resolve().parents[1], Path(module).resolve().parent]
        roots.append(Path.cwd())
        tried = list(dict.fromkeys(root / location for root in roots))
    for path in tried:
        if path.is_dir():
            return path
    raise wrong(
        f'there is no folder {location!r}: neither {" nor ".join(map(str, tried))}',
        'Name it from where the ini file stands, or as package:folder where it is installed with the package.',
    )
