"""The application as a module attribute, for gunicorn, uwsgi and waitress-serve."""

from tests.processes.worker import make

application = make()
