from .conftest import log_in


def test_the_index_lists_all_pages_as_this_release_writes_them(app):
    page = app.get('/')
    assert '40 pages' in page
    assert '<a href="/page/generators">Generators</a>' in page
    assert '<span class="tag">python</span>' in page
    assert '<span class="tag">py</span>' not in page
    assert 'not counted' not in page


def test_two_pages_of_one_title_have_two_slugs(app):
    assert '<h1>Sorting</h1>' in app.get('/page/sorting')
    assert '<h1>Sorting</h1>' in app.get('/page/sorting-2')


def test_the_session_remembers_the_last_page(app):
    app.get('/page/generators')
    assert 'the last one you read was <a href="/page/generators">' in app.get('/')


def test_only_who_is_logged_in_may_edit(app):
    assert '/login?came_from=%2Fedit%2Fgenerators' in app.get('/edit/generators', status=302).location


def test_an_edited_page_is_counted_again(app):
    log_in(app, 'editor', 'editpass')
    form = app.get('/edit/generators').form
    form['body'] = 'four words\r\n\r\nof text'
    page = form.submit().follow()
    assert 'Saved.' in page
    assert '4 words' in page
    assert '<p>four words</p><p>of text</p>' in page
