"""The pages of a fresh wiki. ``py`` was what the release before called the tag ``python``."""

_TITLES = """
    Anonymous functions: py functional
    Attributes and properties: py objects
    Backups: operations
    Café and other encodings: py text
    Caching a page: web performance
    Closures: functional
    Code review: people
    Comprehensions: py functional
    Connection pools: databases performance
    Context managers: py
    Cookies: web security
    Cron jobs: operations
    Dates and time zones: py time
    Decorators: py functional
    Deploying twice a day: operations people
    Descriptors: py objects
    Error pages: web
    Foreign keys: databases
    Full text search: databases text
    Generators: py functional
    Getting started: people
    Glossary: people text
    Health checks: web operations
    Indexes: databases performance
    Isolation levels: databases
    Iterators: py
    Locks and leases: databases operations
    Logging: py operations
    Moving a column: databases operations
    On call: people operations
    Packaging: py
    Passwords: security
    Regular expressions: py text
    Schema and data: databases
    Sessions: web security
    Sorting: py
    Sorting: databases
    Threads and processes: py performance
    Transactions: databases
    What changed in 2.0: people
"""

_SENTENCES = (
    'This page is a stub that grew.',
    'Most of what follows was learned the slow way, and then again the fast way by somebody else.',
    'Start with the smallest thing that could work, and measure before you make it larger.',
    'When two processes want the same row, one of them has to wait; decide which before they do.',
    'The example below was true when it was written.',
    'Names matter: a good one saves a paragraph here and an hour later.',
    'If in doubt, ask on the mailing list, and write the answer down on this page.',
    'Read the release notes first.',
    'There is a longer story behind this, and it ends well.',
    'Keep old data readable for one release longer than you think you need to.',
    'Nothing here is a rule, but breaking it should have a reason.',
)


def pages():
    """The title, the tags and the body of each page, always the same."""
    for number, line in enumerate(_TITLES.strip().splitlines()):
        title, tags = line.strip().split(': ')
        sentences = [_SENTENCES[(number * 3 + step * 5) % len(_SENTENCES)] for step in range(3 + number * 7 % 11)]
        paragraphs = [' '.join(sentences[start : start + 4]) for start in range(0, len(sentences), 4)]
        yield title, tags.split(), '\n\n'.join(paragraphs)
