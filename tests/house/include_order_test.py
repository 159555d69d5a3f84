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
        self.write("transport/stream.h", '#include "base/error.h"\n')
        self.write("transport/tls_stream.cpp", "#include <fcntl.h>\n#include <sys/uio.h>\n")
        self.write("dataplane/io.h", '#include "base/error.h"\n#include "transport/stream.h"\n')
        self.write("dataplane/linux_io.cpp", "#include <liburing.h>\n#include <sys/stat.h>\n#include <linux/fs.h>\n")
        self.write("apps/main.cpp", '#include "dataplane/io.h"\n')
        self.write("tests/unit/base/error_test.cpp", '#include "dataplane/io.h"\n#include <liburing.h>\n')

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def expect_one_error(self, *words):
        errors, _ = include_order.check(self.root)
        self.assertEqual(len(errors), 1, errors)
        for word in words:
            self.assertIn(word, errors[0])

    def test_a_clean_tree_has_no_findings(self):
        self.assertEqual(include_order.check(self.root), ([], []))

    def test_a_folder_may_not_include_what_stands_right_of_it(self):
        self.write("base/units.h", '#pragma once\n  #  include "transport/stream.h"\n')
        self.expect_one_error("base/units.h:2", "transport/")

    def test_brackets_do_not_hide_an_include(self):
        self.write("checksum/crc32c.h", "#include <dataplane/io.h>\n")
        self.expect_one_error("checksum/crc32c.h:1", "dataplane/")

    def test_product_code_may_not_include_tests(self):
        self.write("control/job.cpp", '#include "tests/unit/base/error_test.cpp"\n')
        self.expect_one_error("control/job.cpp:1", "tests/")

    def test_only_the_linux_files_of_dataplane_see_linux_headers(self):
        for header in ("liburing.h", "fcntl.h", "sys/uio.h", "sys/ioctl.h", "sys/stat.h", "sys/statvfs.h", "linux/fs.h"):
            with self.subTest(header):
                self.write("dataplane/vhdx.cpp", f"#include <{header}>\n")
                self.expect_one_error("dataplane/vhdx.cpp:1", header)

    def test_only_the_socket_code_of_transport_sees_linux_headers(self):
        self.write("transport/frame.cpp", "#include <fcntl.h>\n")
        self.expect_one_error("transport/frame.cpp:1", "fcntl.h")

    def test_an_include_that_is_not_named_from_the_top_is_found(self):
        self.write("dataplane/disk.cpp", '#include "io.h"\n')
        self.expect_one_error("dataplane/disk.cpp:1", "io.h")

    def test_a_long_file_draws_a_warning_only(self):
        self.write("base/long.h", "\n" * 501)
        errors, warnings = include_order.check(self.root)
        self.assertEqual(errors, [])
        self.assertEqual(len(warnings), 1)
        self.assertIn("base/long.h", warnings[0])


if __name__ == "__main__":
    unittest.main()
