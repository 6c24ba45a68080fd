"""What of a file of results stays when more is published: trials that would be made again with the same
images and code, and how the settings were chosen."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import pytest

from builders.commands import cli
from builders.places import ROOT
from builders.published import asked, published
from cl_complora.compare import publishing, study
from cl_complora.compare.leaderboard import leaderboard
from cl_complora.compare.publishing import alone, publish, refuse_other_streams
from cl_complora.compare.results_files import Identities, is_current, place, read_entry
from cl_complora.compare.study import Request, compare
from cl_complora.compare.weight_files import weights_known_by
from cl_complora.config import load_scenario
from cl_complora.config.catalog import shipped
from cl_complora.errors import UserError

RESULTS = ROOT / "results"


@pytest.mark.parametrize("seeds", [(0,), (2,)])
def test_seeds_of_other_images_or_code_do_not_stay(tmp_path, tiny_scenario, methods, ran, monkeypatch, seeds):
    """Also where none of them is made again."""
    published(tiny_scenario, methods, tmp_path, seeds=(0, 1))
    whole = Identities.of
    monkeypatch.setattr(Identities, "of", lambda self, t: whole(self, t)[::-1])
    told = []
    found = published(tiny_scenario, methods, tmp_path, seeds, told.append)
    assert read_entry(place(tmp_path, "tiny", "quick")).asked.seeds == list(seeds)
    lost = "4 of the 4 runs in it, of other pictures or other code, are left out"
    files = [place(tmp_path, "tiny", name) for name in ("quick", "slow")]
    assert told == [f"--publish {tmp_path}: {file}: {lost}" for file in files]
    told.clear()
    publish(found, load_scenario(str(tiny_scenario)), tmp_path, told.append)
    assert not told


def test_more_seeds_do_not_change_how_settings_were_chosen(tmp_path, tiny_scenario, methods, ran):
    published(tiny_scenario, methods, tmp_path)
    before = read_entry(place(tmp_path, "tiny", "quick"))
    of_chosen = {key: [value] for key, value in before.chosen.items()}
    more = replace(
        asked(tiny_scenario, methods[:1], (2,)), sweep=of_chosen, reference="", metric="average", floor=-50.0
    )
    publish(compare(more, results=tmp_path), load_scenario(str(tiny_scenario)), tmp_path)
    entry = read_entry(place(tmp_path, "tiny", "quick"))
    assert entry.asked.seeds == [0, 1, 2] and len(entry.curve()) == 2
    assert (entry.asked.metric, entry.asked.floor) == (before.asked.metric, None)
    refuse_other_streams(asked(tiny_scenario, methods, (0, 1, 2)), ["quick", "slow"], "tiny", tmp_path)


def test_methods_are_paired_where_both_saw_the_same_images(tmp_path, tiny_scenario, methods, ran):
    published(tiny_scenario, methods, tmp_path)
    path = place(tmp_path, "tiny", "quick")
    content = json.loads(path.read_text())
    pairs = []
    for others in (0, 1, 2):
        tests = [run for run in content["trials"] if not run["validation"]]
        for run in tests[:others]:
            run["results"]["tasks_detail"][0]["split_sha256"] = "0" * 64
        path.write_text(json.dumps(content))
        rows = {row["name"]: row for row in leaderboard(tmp_path, "tiny", "slow")["rows"]}
        pairs.append(rows["quick"]["against_reference"].get("last", {}).get("pairs", 0))
    assert pairs == [4, 2, 0]


def test_an_own_strategy_or_scenario_is_stale_where_the_other_of_the_two_is():
    entry = read_entry(RESULTS / "embedded" / "lora.json")
    for own in ({"method": "mine"}, {"scenario": "mine"}, {"method": "mine", "scenario": "mine"}):
        mine = entry.model_copy(update=own)
        assert is_current(mine)
        for key in ("scenario", "strategy", "weights"):
            other = mine.model_copy(
                update={"fingerprint": entry.fingerprint.model_copy(update={key: "0" * 64})}
            )
            known = "strategy" if "method" not in own else None if "scenario" in own else key
            assert is_current(other) == (known != key or key == "strategy" and "method" in own)


def test_what_ships_is_not_written_over_by_another_scenario_of_its_name(tmp_path):
    file = tmp_path / "mine.yaml"
    text = shipped("scenario")["embedded"].read_text()
    changed = text.replace("shots: 8", "shots: 3")
    assert changed != text
    file.write_text(changed)
    with pytest.raises(UserError, match="holds what lora gives on embedded as they ship"):
        refuse_other_streams(Request(str(file), ("lora",), (0,)), ["lora"], "embedded", RESULTS)


def test_the_config_of_a_model_is_part_of_what_its_weights_are_known_by(tmp_path, tiny_scenario, tiny_files):
    config, weights = tiny_files
    content = json.loads(config.read_text())
    known = set()
    for mean in ([0.0, 0.0, 0.0], [0.5, 0.5, 0.5]):
        (tmp_path / "m.json").write_text(json.dumps(content | {"preprocess_cfg": {"mean": mean}}))
        model = f"model={{name: tiny, config: {tmp_path / 'm.json'}, pretrained: {weights}}}"
        known.add(weights_known_by(load_scenario(str(tiny_scenario), [model]).value, tmp_path))
    assert len(known) == 2 and len({text.split(",")[0] for text in known}) == 1


def test_what_another_comparison_published_meanwhile_is_not_written_over(
    tmp_path, tiny_scenario, methods, ran, monkeypatch, capsys
):
    """It is told when the table is there, which is kept and shown."""
    words = ["compare", tiny_scenario, "-s", methods[0], "--seeds", "0", "--out", tmp_path / "runs"]
    words += ["--publish", tmp_path / "shared"]

    class Meanwhile:
        def __init__(self, *words): ...
        def __enter__(self):
            published(tiny_scenario, methods, tmp_path / "shared", seeds=(0, 1))
            return workers()

        def __exit__(self, *words): ...

    workers = study.open_workers
    monkeypatch.setattr(study, "open_workers", lambda *words: next(turns)(*words))
    turns = iter([Meanwhile, *[workers] * 9])
    code, out, said = cli(monkeypatch, capsys, *words)
    assert code == 2 and "quick.json holds 2 values of its sweep, the seeds 1 of its tests" in said
    assert "quick" in out and (tmp_path / "runs" / "tiny" / "comparison.json").is_file()
    assert read_entry(place(tmp_path / "shared", "tiny", "quick")).asked.seeds == [0, 1]


def test_comparisons_that_end_together_publish_one_after_the_other(tmp_path):
    """What one adds while another reads, looks up images and writes would be lost."""
    order, inside = [], threading.Event()

    def first():
        with alone(tmp_path, "tiny"):
            inside.set()
            time.sleep(1)
            order.append("first")

    other = threading.Thread(target=first)
    other.start()
    inside.wait()
    with alone(tmp_path, "of other images"):
        order.append("other scenario")
    with alone(tmp_path, "tiny"):
        order.append("second")
    other.join()
    assert order == ["other scenario", "first", "second"]


def test_another_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "LONGEST", 0.0)
    with alone(tmp_path, "tiny"), pytest.raises(UserError, match=f"in use by .*process {os.getpid()}"):
        alone(tmp_path, "tiny").__enter__()
