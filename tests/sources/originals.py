"""The tools that sources stand in for, each in an environment of its own: they need libraries of their time."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.servers import missing

#: Seconds for an installation.
INSTALL = 300


class Original:
    """Runs Python programs beside an old library.

    :param directory: where the environment is kept from one test session to the next.
    """

    def __init__(self, directory: Path, *requirements: str):
        self._python = directory / 'bin' / 'python'
        done = directory / 'requirements'
        with open(f'{directory}.lock', 'w') as lock:  # beside: the directory is cleared
            fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same session want it too
            if done.exists() and done.read_text() == '\n'.join(requirements):
                return
            try:
                self._run(sys.executable, '-m', 'venv', '--clear', str(directory))
                self._run(str(self._python), '-m', 'pip', 'install', '--quiet', *requirements)
            except subprocess.CalledProcessError as error:
                missing(f'pip cannot install {" ".join(requirements)}:\n{error.output[-2000:]}')
            done.write_text('\n'.join(requirements))

    def _run(self, *command: str) -> None:
        subprocess.run(
            command, check=True, timeout=INSTALL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def python(self, program: str, *arguments: str, path: Path) -> str:
        """What a program prints; its modules are looked for in ``path``.

        :raises subprocess.CalledProcessError: with its ``stderr``.
        """
        done = subprocess.run(
            [str(self._python), '-W', 'ignore', '-c', program, *arguments],
            env={**os.environ, 'PYTHONPATH': str(path), 'PYTHONDONTWRITEBYTECODE': '1'},
            cwd=path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise AssertionError(f'the original failed:\n{done.stderr[-3000:]}')
        return done.stdout


def for_drivers_of_then(url: str) -> str:
    """The same database, by a driver that old libraries know."""
    parsed = make_url(url)
    if parsed.get_backend_name() == 'postgresql':
        parsed = parsed.set(drivername='postgresql+psycopg2')
    elif parsed.get_backend_name() == 'mariadb':
        parsed = parsed.set(drivername='mysql+pymysql')
    return parsed.render_as_string(hide_password=False)
