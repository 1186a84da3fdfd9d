"""The browser tests notice what they are there to notice, and leave nothing behind for one another."""

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


def test_a_kernel_knows_nothing_of_the_one_before(lab):
    cell = """import os, sys
found = "workbench" in sys.modules or "LEFT" in os.environ or os.path.basename(os.getcwd()) != "notebooks"
import workbench
os.environ["LEFT"] = "behind"
os.chdir("..")"""
    for _ in range(2):
        notebook = lab([cell]).run_all()
        assert notebook.python("found") is False
        notebook.close()
