"""Names as files: told apart whatever they are written in, and read back whole."""

from __future__ import annotations

import json

from cl_complora.files import slug
from cl_complora.store.folder import RunDir


def test_plain_names_keep_the_files_that_they_had():
    assert slug("a task 1.5+x_y") == "a-task-1.5+x_y" and slug("lr=0.001,rank=8") == "lr-0.001-rank-8"
    assert slug("") == ""


def test_names_of_other_letters_do_not_share_a_file():
    names = ["花", "鸟", "花鸟", "Ж", "cafés", "cafès", "\ud800", "é", "e\u0301x"]
    made = [slug(name) for name in names]
    assert len({*made}) == len(names) and all(one.isascii() and one[0] not in "-." for one in made)
    assert slug("é") == slug("e\u0301")  # the same letter, as another system writes it


def test_long_names_fit_into_a_file_system_and_differ():
    one, other = (slug("lr=0.001," * 60 + end) for end in ("a=1", "a=2"))
    assert one != other and len(one) < 220 and len(slug("花" * 300)) < 220


def test_a_split_with_odd_ends_of_lines_in_its_names_is_read_back(tmp_path):
    folder = RunDir(tmp_path)
    rows = [{"split": "test", "class": c, "key": f"a{c}.png"} for c in ("x\u2028y", "x\x85y", "x\x0cy", "z")]
    folder.split("t").parent.mkdir()
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    folder.split("t").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert folder.read_split("t") == rows
