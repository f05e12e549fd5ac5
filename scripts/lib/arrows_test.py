#!/usr/bin/env python3
"""Tests of the gate of arrows: that it sees what it is there to see."""

import unittest

import arrows

PAGE = "text\n```arrows\ntop ─► middle, ground\nmiddle ─► ground\n```\n"
RIGHT = {"top": ["ground", "middle"], "middle": ["ground"], "ground": []}


def said(page=PAGE, **changed):
    return list(arrows.faults(arrows.drawn(page), RIGHT | changed))


class Arrows(unittest.TestCase):
    def test_the_house_as_it_is_drawn_is_right(self):
        self.assertEqual(said(), [])

    def test_an_arrow_that_is_not_drawn_is_refused(self):
        self.assertEqual(said(ground=["top"]), ["ground imports top, and the drawing has no such arrow"])

    def test_a_crate_that_is_not_drawn_may_import_nothing(self):
        self.assertIn("new imports ground", said(new=["ground"])[0])

    def test_an_arrow_that_nobody_needs_is_taken_out(self):
        self.assertIn("lets middle import ground", said(middle=[])[0])

    def test_a_crate_that_is_gone_is_taken_out(self):
        page = PAGE.replace("middle ─► ground\n", "middle ─► ground\ngone ─► ground\n")
        self.assertEqual(said(page), ["the drawing has a crate gone, and there is none"])

    def test_no_arrow_runs_back_up(self):
        page = "```arrows\nmiddle ─► ground\ntop ─► middle, ground\n```\n"
        self.assertIn("top ─► middle runs back up", said(page)[0])

    def test_a_program_is_imported_by_nothing(self):
        page = PAGE.replace("top ─► middle, ground", "top ─► middle, ground, agent")
        found = said(page, top=["agent", "ground", "middle"])
        self.assertEqual(found, ["top imports agent, which is a program"])

    def test_a_page_without_one_drawing_that_can_be_read_is_refused(self):
        for page in ["", PAGE + PAGE, PAGE.replace("middle ─► ground", "middle -> ground"), PAGE.replace("middle ─►", "top ─►")]:
            with self.assertRaises(ValueError):
                arrows.drawn(page)

    def test_what_tests_import_counts_too(self):
        dependencies = [{"name": "navvy-a", "kind": "dev"}, {"name": "serde", "kind": None}, {"name": "navvy-b", "kind": None}]
        packages = {"packages": [{"name": "navvy-x", "dependencies": dependencies}]}
        self.assertEqual(arrows.imported(packages), {"x": ["a", "b"]})


if __name__ == "__main__":
    unittest.main()
