"""The tables, users and pages, on SQLAlchemy."""

import transaction
from sqlalchemy import inspect

from .. import model
from ..lib.text import slugify
from .content import pages


def bootstrap(conf, old):
    """:param old: leave the pages as the release before did; :return: False where there are tables already."""
    engine = conf['tg.app_globals'].sa_engine
    if inspect(engine).has_table(model.Page.__tablename__):
        return False
    model.metadata.create_all(engine)

    manage = model.Permission(permission_name='manage')
    managers = model.Group(group_name='managers', permissions=[manage])
    model.User.create('manager', 'managepass', groups=[managers])
    model.User.create('editor', 'editpass')

    taken = set()
    for title, tags, body in pages():
        if old:
            page = model.Page(title=title, body=body, tags=tags)
        else:
            page = model.Page(title=title, tags=['python' if tag == 'py' else tag for tag in tags])
            page.slug = slugify(title, taken)
            page.write(body)
            taken.add(page.slug)
        model.DBSession.add(page)
        model.DBSession.flush()  # one by one: their ids are in the order of the list, on every database
    transaction.commit()
    return True
