#!/usr/bin/python3
"""Plants one violation at a time in a small tree and expects the include-order check to name it."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import include_order


class IncludeOrder(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)
        self.root = pathlib.Path(self.work.name)
        self.write("base/error.h", "#pragma once\n#include <string>\n")
        self.write("transport/stream/stream.h", '#include "base/error.h"\n')
        self.write("transport/tls/tls_stream.cpp", "#include <fcntl.h>\n#include <sys/uio.h>\n")
        self.write("dataplane/disk/io.h", '#include "base/error.h"\n#include "transport/stream/stream.h"\n')
        self.write("dataplane/linux/linux_io.cpp", "#include <liburing.h>\n#include <sys/stat.h>\n#include <linux/fs.h>\n")
        self.write("apps/main.cpp", '#include "dataplane/disk/io.h"\n')
        self.write("tests/unit/base/error_test.cpp", '#include "dataplane/disk/io.h"\n#include <liburing.h>\n')

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.parent.parent != self.root and not name.startswith("tests/"):
            (path.parent / "README.md").write_text("what it is\n")

    def expect_one_error(self, *words):
        errors = include_order.check(self.root)
        self.assertEqual(len(errors), 1, errors)
        for word in words:
            self.assertIn(word, errors[0])

    def test_a_clean_tree_has_no_findings(self):
        self.assertEqual(include_order.check(self.root), [])

    def test_a_folder_may_not_include_what_stands_right_of_it(self):
        self.write("base/units.h", '#pragma once\n  #  include "transport/stream/stream.h"\n')
        self.expect_one_error("base/units.h:2", "transport/")

    def test_dots_do_not_hide_an_include(self):
        self.write("dataplane/target/target_store.h", "#pragma once\n")
        self.write("dataplane/source/send.h", '#include "dataplane/source/../target/target_store.h"\n')
        self.expect_one_error("dataplane/source/send.h:1", "without dots")

    def test_a_folder_without_rooms_is_one_room(self):
        for number in range(31):
            self.write(f"apps/file{number}.h", "#pragma once\n")
        self.expect_one_error("apps: 32 sources", "more than 30")

    def test_a_long_file_is_found_wherever_it_stands(self):
        for name in ("examples/files/driver.py", ".ci/tool.py", "setup.py"):
            with self.subTest(name):
                self.write(name, "pass\n" * 450)
                self.expect_one_error(name, "450 lines")
                (self.root / name).unlink()

    def test_other_endings_and_folders_of_cpp_are_refused(self):
        self.write("dataplane/disk/other.hpp", "#pragma once\n")
        self.expect_one_error("dataplane/disk/other.hpp", ".h or .cpp")
        (self.root / "dataplane/disk/other.hpp").unlink()
        self.write("web/server.cpp", "\n")
        self.expect_one_error("web/server.cpp", "stands in")

    def test_brackets_do_not_hide_an_include(self):
        self.write("checksum/crc32c.h", "#include <dataplane/disk/io.h>\n")
        self.expect_one_error("checksum/crc32c.h:1", "dataplane/")

    def test_product_code_may_not_include_tests(self):
        self.write("control/model/job.cpp", '#include "tests/unit/base/error_test.cpp"\n')
        self.expect_one_error("control/model/job.cpp:1", "tests/")

    def test_only_the_linux_files_of_dataplane_see_linux_headers(self):
        for header in ("liburing.h", "fcntl.h", "sys/uio.h", "sys/ioctl.h", "sys/stat.h", "sys/statvfs.h", "linux/fs.h"):
            with self.subTest(header):
                self.write("dataplane/disk/vhdx.cpp", f"#include <{header}>\n")
                self.expect_one_error("dataplane/disk/vhdx.cpp:1", header)

    def test_only_the_socket_code_of_transport_sees_linux_headers(self):
        self.write("transport/frames/frame.cpp", "#include <fcntl.h>\n")
        self.expect_one_error("transport/frames/frame.cpp:1", "fcntl.h")

    def test_an_include_that_is_not_named_from_the_top_is_found(self):
        self.write("dataplane/disk/disk.cpp", '#include "io.h"\n')
        self.expect_one_error("dataplane/disk/disk.cpp:1", "io.h")

    def test_a_room_may_not_include_a_room_right_of_it(self):
        self.write("dataplane/disk/raw_disk.h", '#include "dataplane/linux/linux_io.h"\n')
        self.write("dataplane/linux/linux_io.h", "")
        self.expect_one_error("dataplane/disk/raw_disk.h:1", "dataplane/linux stands right")

    def test_source_and_target_never_see_each_other(self):
        for ours, theirs in (("source", "target"), ("target", "source")):
            with self.subTest(ours):
                self.write(f"dataplane/{theirs}/b.h", "")
                self.write(f"dataplane/{ours}/a.h", f'#include "dataplane/{theirs}/b.h"\n')
                self.expect_one_error(f"dataplane/{ours}/a.h:1", f"dataplane/{theirs}/b.h")
                self.write(f"dataplane/{ours}/a.h", "")

    def test_a_file_outside_all_rooms_is_found(self):
        self.write("dataplane/lost.h", "")
        self.expect_one_error("dataplane/lost.h", "no room")

    def test_a_room_that_is_too_full_or_has_no_readme_is_found(self):
        for number in range(31):
            self.write(f"dataplane/scan/file{number}.h", "")
        self.expect_one_error("dataplane/scan", "31 sources")
        (self.root / "dataplane/scan/README.md").unlink()
        (self.root / "dataplane/scan/file30.h").unlink()
        self.expect_one_error("dataplane/scan", "README")

    def test_a_long_file_is_found(self):
        for name in ("base/long.h", "tests/unit/base/long_test.cpp", "bench/long.py"):
            with self.subTest(name):
                self.write(name, "\n" * 450)
                self.expect_one_error(name, "450")
                self.write(name, "\n" * 449)
                self.assertEqual(include_order.check(self.root), [])


if __name__ == "__main__":
    unittest.main()
