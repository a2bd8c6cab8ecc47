"""What two contents of a database differ in, as people read it."""

from __future__ import annotations

from tgext.evolve.testing.content import Content, Table


def content(*rows, key=('id',), name='page'):
    return Content({name: Table([dict(row) for row in rows], key)})


ONE, TWO = {'id': 1, 'title': 'One'}, {'id': 2, 'title': 'Two'}


def test_the_same_is_the_same_in_any_order():
    assert content(ONE, TWO).differences(content(TWO, ONE)) == []


def test_a_value_is_told_with_the_key_of_its_row():
    assert content(ONE).differences(content({**ONE, 'title': 'X'})) == ["page (id = 1): title is 'X' instead of 'One'"]


def test_rows_that_came_and_went_are_told():
    assert content(ONE).differences(content(TWO)) == [
        "page: lacks id = 1, title = 'One'",
        "page: has id = 2, title = 'Two'",
    ]


def test_a_row_that_is_there_twice_is_no_single_one():
    assert content(ONE, key=()).differences(content(ONE, ONE, key=())) == ["page: has id = 1, title = 'One'"]


def test_a_column_is_told_that_only_one_has():
    assert content(ONE).differences(content({**ONE, 'new': None})) == ['page (id = 1): new is None instead of nothing']


def test_a_table_is_told_that_only_one_has():
    assert Content().differences(content()) == ['page: the table is new']
    assert content(ONE).differences(Content()) == ['page: the table is gone']
    assert content().differences(Content()) == []  # MongoDB makes and forgets empty collections as it likes


def test_no_more_than_a_few_are_told():
    rows = [{'id': number, 'title': 'x' * 200} for number in range(10)]
    lines = content().differences(content(*rows))
    assert len(lines) == 4
    assert lines[-1] == '... and 7 more'
    assert max(map(len, lines)) < 150


def test_tables_and_columns_can_be_ignored():
    other = content({**ONE, 'title': 'X'})
    for ignored in ('page', 'page.title', '*.title'):
        assert content(ONE).differences(other, [ignored]) == []
    assert content(ONE).differences(other, ['title', 'page.id', 'other']) != []


def test_a_type_is_part_of_a_value():
    assert content({'id': 1, 'n': 1}).differences(content({'id': 1, 'n': '1'})) != []


def test_what_chance_has_made_is_known_by_two_that_were_made_alike():
    one, other = content({**ONE, 'salt': 'abc'}), content({**ONE, 'salt': 'xyz'})
    assert one.made_anew(other) == {'page.salt'}
    assert one.differences(other, one.made_anew(other)) == []


def test_a_key_that_chance_has_made_is_not_compared():
    one, other = content({'id': 1, 'title': 'One', 'n': 1}), content({'id': 9, 'title': 'One', 'n': 2})
    assert one.differences(other, ['page.id']) == ["page: lacks n = 1, title = 'One'", "page: has n = 2, title = 'One'"]


def test_a_table_that_is_not_there_is_empty():
    assert Content()['page'] == []
