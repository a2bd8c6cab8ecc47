def test_a_missing_page_is_said_so_on_a_page_of_ours(app):
    page = app.get('/page/of-nobody', status=404)
    assert 'There is no such page.' in page
    assert 'Sample wiki' in page


def test_the_error_page_is_not_a_page(app):
    assert 'Error 404' in app.get('/error/document', status=404)
