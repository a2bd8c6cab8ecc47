"""The pages for people when something is not as they expect."""

import tg
from tg import TGController, abort, expose, override_template, request


class ErrorController(TGController):
    """TurboGears comes here with the responses that ``errorpage.status_codes`` names."""

    @expose('sample_app.templates.error')
    def document(self, *args, **kw):
        response = request.environ.get('tg.original_response')
        if response is None:
            abort(404)  # somebody typed this address
        if response.status_int == 503:
            # The database may be in the middle of an evolution: this page needs no table, no session and no user.
            override_template(self.document, 'kajiki:sample_app.templates.maintenance')
            return {'status_url': tg.url('/_evolve/status'), 'sent': request.method not in ('GET', 'HEAD')}
        message = getattr(response, 'detail', None) or 'We are sorry, but that did not work.'
        return {'code': response.status_int, 'message': message}
