#!/usr/bin/python3
"""Plants one stale name at a time in a small tree and expects the check of names to find it."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import doc_names

GOOD = """# A page

`Records::transact` of `control/store/records.h` (or `records.h`, `store/rec*.h`, `store/NAME.h`) writes; `set_state()` does not. Folders: `control/store/`, `docs`.
`kind_of_store`, `itemWritten`, `StoreFailed`, `BACKHAUL_SEED`, `store.damaged`, `--state`, `backhaul item --state s`, `/etc/fstab`, `a few words`.

```sh
cat `nowhere.py`
```
"""


class DocNames(unittest.TestCase):
    def setUp(self):
        self.work = tempfile.TemporaryDirectory()
        self.addCleanup(self.work.cleanup)
        self.root = pathlib.Path(self.work.name)
        self.write("control/store/records.h", "class Records {\n  void transact(int kind_of_store);  // gone_since: see records.cpp\n};\n"
                                              "void set_state();\nenum { StoreFailed };\n")
        self.write("control/store/records.cpp", 'const char* name = "itemWritten";\nconst Info infos[] = {{"store.damaged", "it is damaged"}};\n')
        self.write("tests/run.py", 'os.environ["BACKHAUL_SEED"]  # see records.h\nparser.add_argument("--state")\n')
        self.write("docs/page.md", GOOD)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def expect_one(self, *words):
        found = doc_names.check(self.root)
        self.assertEqual(len(found), 1, found)
        for word in words:
            self.assertIn(word, found[0])

    def test_a_true_page_has_no_findings(self):
        self.assertEqual(doc_names.check(self.root), [])

    def test_each_kind_of_stale_name_in_a_document_is_found(self):
        for name in ("gone.h", "control/gone/", "control/records.h", "store/gone*.h", "Records::set_state", "Gone::transact", "gone()", "GoneSince",
                     "goneSince", "gone_since", "BACKHAUL_GONE", "store.gone", "--gone", "backhaul item --gone"):
            with self.subTest(name):
                self.write("docs/page.md", GOOD + f"\nWhat `{name}` does.\n")
                self.expect_one("docs/page.md:10:", name.split()[-1].split("::")[-1])

    def test_a_line_number_is_found(self):
        self.write("docs/page.md", "`records.h:2`\n")
        self.expect_one("docs/page.md:1", "records.h:2")

    def test_a_file_that_a_comment_names_must_exist(self):
        for name, text in (("control/store/store.cpp", "int a;  // as in gone.h\n"), ("tests/look.py", "# as in tests/gone.py\n")):
            with self.subTest(name):
                self.write(name, text)
                self.expect_one(f"{name}:1", "gone.")
                (self.root / name).unlink()


if __name__ == "__main__":
    unittest.main()
