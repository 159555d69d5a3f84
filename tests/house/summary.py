#!/usr/bin/python3
"""Adds up what the test stages left as XML, names the failures, and ends with 'N passed, N failed, N skipped'.

    summary.py RESULTS [FAILED_STAGES]     exit 1 when anything failed or nothing ran

RESULTS/<stage>/ctest.xml is ctest's report of programs; RESULTS/<stage>/gtest/<program>.xml the cases of those that are
GoogleTest programs; any other RESULTS/<stage>/*.xml is pytest's.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


class Totals:
    def __init__(self):
        self.passed, self.skipped, self.failures = 0, 0, []

    def add(self, other):
        self.passed += other.passed
        self.skipped += other.skipped
        self.failures += other.failures

    def __str__(self):
        return f"{self.passed} passed, {len(self.failures)} failed, {self.skipped} skipped"


def cases_of(path, stage):
    """The cases of one report of JUnit's kind, as GoogleTest and pytest write it."""
    totals = Totals()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{stage}: {case.get('classname', '')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            totals.failures.append(name)
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            totals.skipped += 1
        else:
            totals.passed += 1
    return totals


def programs_of(stage_path):
    """ctest's programs, each replaced by its cases where it left them."""
    stage, totals = stage_path.name, Totals()
    for program in ElementTree.parse(stage_path / "ctest.xml").getroot().iter("testcase"):
        name, status = program.get("name"), program.get("status")
        report = stage_path / "gtest" / f"{name}.xml"
        cases = Totals()
        try:
            cases = cases_of(report, stage)
        except (OSError, ElementTree.ParseError):
            if status == "run":
                cases.passed = 1
            elif status == "disabled":
                cases.skipped = 1
        # A crash, a leak or a time-out at the end fails a program whose cases had all passed.
        if status not in ("run", "disabled") and not cases.failures:
            cases.failures.append(f"{stage}: {name} ({status})")
        totals.add(cases)
    return totals


def collect(results):
    stages = {}
    for stage_path in sorted(path for path in pathlib.Path(results).glob("*") if path.is_dir()):
        totals = stages.setdefault(stage_path.name, Totals())
        for report in sorted(stage_path.glob("*.xml")):
            try:
                totals.add(programs_of(stage_path) if report.name == "ctest.xml" else cases_of(report, stage_path.name))
            except ElementTree.ParseError as error:
                totals.failures.append(f"{stage_path.name}: {report.name} is damaged: {error}")
    return stages


def main():
    stages = collect(sys.argv[1])
    failed_stages = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    everything = Totals()
    for name, totals in stages.items():
        print(f"{name:28} {totals}")
        everything.add(totals)
    # A stage that failed, but whose cases show no failure (a build, a crash of the runner), still counts.
    broken = sum(1 for totals in stages.values() if totals.failures)
    everything.failures += ["a stage failed without a failed case: see above"] * max(0, failed_stages - broken)
    for failure in everything.failures:
        print(f"FAILED {failure}")
    print(everything)
    return 1 if everything.failures or everything.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
