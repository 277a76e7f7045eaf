"""The sealed-dataset vectors by the second implementation: python3 -m unittest discover test/python."""

import json
import pathlib
import unittest

from sealed_reader import Refused, Root, open_sealed, sha256

FOLDER = pathlib.Path(__file__).parent.parent / "vectors" / "sealed-dataset"


class Vectors(unittest.TestCase):
    def setUp(self):
        self.index = json.loads((FOLDER / "index.json").read_text())
        self.secret = bytes.fromhex(self.index["root_secret"])

    def test_root_keys(self):
        ids = ["0x" + sha256(Root.derive(self.secret, epoch).public_key()).hex() for epoch in (0, 1)]
        self.assertEqual(ids, self.index["root_key_ids"])

    def test_every_file(self):
        self.assertGreater(len(self.index["cases"]), 100)
        for case in self.index["cases"]:
            with self.subTest(case["file"]):
                file = (FOLDER / case["file"]).read_bytes()
                if "layer" in case:
                    with self.assertRaises(Refused) as refused:
                        open_sealed(file, self.secret, case["attested"])
                    self.assertEqual(refused.exception.layer, case["layer"])
                else:
                    self.check_valid(open_sealed(file, self.secret, case["attested"]), case["expected"])

    def check_valid(self, opened, expected):
        self.assertEqual("0x" + opened.dataset_id.hex(), expected["dataset_id"])
        self.assertEqual("0x" + opened.data_root.hex(), expected["data_root"])
        self.assertEqual(len(opened.plaintext), expected["plaintext_bytes"])
        self.assertEqual("0x" + sha256(opened.plaintext).hex(), expected["plaintext_sha256"])
        for name in ("info", "wrap_key", "data_key", "chunk_key"):
            self.assertEqual(getattr(opened, name).hex(), expected[name], name)


if __name__ == "__main__":
    unittest.main()
