"""The users and pages, on MongoDB."""

from ming.odm import Mapper

from .. import ming_model as model
from ..lib.text import slugify
from .content import pages


def bootstrap(conf, old):
    """:param old: leave the pages as the release before did; :return: False where there are users already."""
    if model.User.query.find().first() is not None:
        return False
    for mapper in Mapper.all_mappers():
        model.mainsession.ensure_indexes(mapper.collection)

    model.User.create('manager', 'managepass', groups=['managers'], permissions=['manage'])
    model.User.create('editor', 'editpass')

    taken = set()
    for title, tags, body in pages():
        page = model.Page(title=title, tags=tags, body=body)
        if not old:
            page.slug = slugify(title, taken)
            page.write(body)
            taken.add(page.slug)
    model.DBSession.flush()
    model.DBSession.clear()
    return True
