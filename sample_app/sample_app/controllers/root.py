"""The pages of the wiki, and login."""

import tg
from tg import TGController, abort, expose, flash, lurl, redirect, request, require, session
from tg.exceptions import HTTPFound
from tg.predicates import not_anonymous

from .error import ErrorController


class RootController(TGController):
    error = ErrorController()

    @expose('sample_app.templates.index')
    def index(self):
        return {'pages': tg.config['model'].list_pages(), 'last_read': session.get('last_read')}

    @expose('sample_app.templates.page')
    def page(self, slug=None):
        page = self._find(slug)
        session['last_read'] = slug
        session.save()
        return {'page': page}

    @expose('sample_app.templates.edit')
    @require(not_anonymous())
    def edit(self, slug=None, body=None):
        page = self._find(slug)
        if request.method == 'POST' and body:
            page.write(body.replace('\r\n', '\n'))  # browsers send both
            flash('Saved.')
            redirect('/page/' + page.slug)
        return {'page': page}

    def _find(self, slug):
        page = tg.config['model'].find_page(slug) if slug else None
        if page is None:
            abort(404, 'There is no such page.')
        return page

    @expose('sample_app.templates.login')
    def login(self, came_from=lurl('/'), login='', **kw):
        failures = request.environ.get('repoze.who.logins', 0)
        if failures:
            flash('Wrong user name or password.', 'error')
        return {'came_from': came_from, 'login': login, 'failures': failures}

    @expose()
    def post_login(self, came_from=lurl('/'), **kw):
        if not request.identity:
            failures = request.environ.get('repoze.who.logins', 0) + 1
            redirect('/login', params={'came_from': came_from, '__logins': failures})
        flash(f'Welcome, {request.identity["user"].user_name}.')
        # Not redirect(): came_from is a whole URL already.
        return HTTPFound(location=came_from)
