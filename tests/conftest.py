"""What all tests share."""

import signal

# Who runs the tests in the background may have SIGINT ignored, which every process that they start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ['pytester', 'tests.servers', 'tests.processes.fixtures', 'tests.chaos.figures', 'tests.raised']
