"""What a page's slug and word count are: this release's code and its evolutions must agree on it."""

import re
import unicodedata


def slugify(title: str, taken=()) -> str:
    """The part of a page's address that is made from its title.

    :param taken: slugs that other pages have already; a number is appended to keep clear of them.
    """
    plain = unicodedata.normalize('NFKD', title).encode('ascii', 'ignore').decode()
    base = re.sub(r'[^a-z0-9]+', '-', plain.lower()).strip('-')[:80] or 'page'
    slug, number = base, 1
    while slug in taken:
        number += 1
        slug = f'{base}-{number}'
    return slug


def count_words(body: str) -> int:
    return len(body.split())
