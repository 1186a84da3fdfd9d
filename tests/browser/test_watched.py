"""The browser tests notice what they are there to notice."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("fetch('http://elsewhere.invalid/x').catch(() => 0)", "request: http://elsewhere.invalid/x leaves the machine"),
        ("console.error('broken')", "console: broken"),
        ("setTimeout(() => { throw new Error('thrown') })", "script: thrown"),
    ],
)
def test_what_a_page_must_not_do_is_noticed(watched, script, complaint):
    watched.page.evaluate(script)
    watched.page.wait_for_timeout(300)
    assert complaint in watched.complaints
    watched.complaints.clear()
