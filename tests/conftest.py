"""What all tests share."""

pytest_plugins = ['tests.servers', 'tests.processes.fixtures', 'tests.chaos.figures']
