"""The tests with the oldest versions that pyproject.toml names: nox. The newest are what script/test installs.

Where a version cannot be had, the session fails: nothing is claimed that was not run.
"""

import nox

nox.options.default_venv_backend = 'venv'
nox.options.reuse_existing_virtualenvs = True

#: The lower bounds in pyproject.toml; tests/unit/test_release.py holds them together.
OLDEST = ('SQLAlchemy==2.0.0', 'Ming==0.14.0', 'pymongo==4.6.3')
#: Installed by itself: tg.devtools, which makes the tests' quickstarts, wants the next one.
OLDEST_TURBOGEARS = 'TurboGears2==2.5.0'


@nox.session
def oldest(session: nox.Session) -> None:
    """All that needs no server, no browser and no other process."""
    constraints = f'{session.create_tmp()}/oldest.txt'
    with open(constraints, 'w') as file:
        file.write('\n'.join(OLDEST) + '\n')
    session.install('-e', '.[sqlalchemy,ming,test]', '-e', './sample_app', '-c', constraints)
    session.install('--no-deps', OLDEST_TURBOGEARS)
    arguments = session.posargs or ['-n', '3', 'tests/unit', 'tests/web', 'tests/stores', 'sample_app']
    session.run('python', '-m', 'pytest', '-q', '-m', 'not slow and not servers and not browser', *arguments)
