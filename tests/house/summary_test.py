#!/usr/bin/python3
"""The summary must not lose a failure: each way in which a test stage can fail is planted and must be counted."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

SUMMARY = pathlib.Path(__file__).parent / "summary.py"
GTEST_OK = '<testsuites><testsuite><testcase name="a" status="run" classname="s"/><testcase name="b" status="run" classname="s">' \
           '<skipped message=""/></testcase></testsuite></testsuites>'
GTEST_BAD = GTEST_OK.replace("</testsuite>", '<testcase name="c" status="run" classname="s"><failure/></testcase></testsuite>')


class Summary(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)
        self.results = pathlib.Path(self.work.name)

    def write(self, name, text):
        path = self.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def program(self, status):
        self.write("release/ctest.xml", f'<testsuite><testcase name="unit_base" status="{status}"/></testsuite>')

    def expect(self, last_line, exit_code, failed_stages=0):
        done = subprocess.run([sys.executable, SUMMARY, self.results, str(failed_stages)], capture_output=True, text=True)
        self.assertEqual(done.stdout.splitlines()[-1], last_line, done.stdout + done.stderr)
        self.assertEqual(done.returncode, exit_code)

    def test_the_cases_of_all_stages_are_added_up(self):
        self.program("run")
        self.write("release/gtest/unit_base.xml", GTEST_OK)
        self.write("release-integration/together.xml", '<testsuites><testsuite><testcase name="t"/></testsuite></testsuites>')
        self.expect("2 passed, 0 failed, 1 skipped", 0)

    def test_a_program_without_cases_counts_as_one(self):
        self.program("run")
        self.expect("1 passed, 0 failed, 0 skipped", 0)

    def test_a_failed_case_is_counted_once(self):
        self.program("fail")
        self.write("release/gtest/unit_base.xml", GTEST_BAD)
        self.expect("1 passed, 1 failed, 1 skipped", 1, failed_stages=1)

    def test_a_program_that_fails_after_its_cases_passed_is_a_failure(self):
        self.program("fail")
        self.write("release/gtest/unit_base.xml", GTEST_OK)
        self.expect("1 passed, 1 failed, 1 skipped", 1, failed_stages=1)

    def test_a_program_that_crashed_or_did_not_run_is_a_failure(self):
        for status in ("fail", "notrun"):
            with self.subTest(status):
                self.program(status)
                self.expect("0 passed, 1 failed, 0 skipped", 1, failed_stages=1)

    def test_an_error_in_a_pytest_fixture_is_a_failure(self):
        self.write("release-integration/together.xml", '<testsuites><testsuite><testcase name="t"><error/></testcase></testsuite></testsuites>')
        self.expect("0 passed, 1 failed, 0 skipped", 1, failed_stages=1)

    def test_a_stage_that_broke_without_a_report_is_a_failure(self):
        self.program("run")
        self.expect("1 passed, 1 failed, 0 skipped", 1, failed_stages=1)

    def test_nothing_run_is_no_success(self):
        self.expect("0 passed, 0 failed, 0 skipped", 1)


if __name__ == "__main__":
    unittest.main()
