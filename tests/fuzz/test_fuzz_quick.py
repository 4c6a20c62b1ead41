"""A short campaign over all formats, and a check that the campaign would see each defect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="forks, and limits memory as Linux does"
)
HERE = Path(__file__).parent

_PLANTED = """
import json, os, sys, tempfile, time, warnings
from pathlib import Path
sys.path.insert(0, {here!r})
from fuzz_process import ProcessLimits, Read, end_of
from simcrop_core.errors import SimCroPError

def refuse(path, **changes):
    raise SimCroPError(**({{"problem": "It is bad", "code": "bad", "remedy": "Get another",
                            "path": path}} | changes))

def loads(path): return Read("same", (("a", "note."),))
def refuses(path): refuse(path)
def names_no_file(path): refuse(None)
def gives_no_remedy(path): refuse(path, remedy="")
def raises(path): raise IndexError("list index out of range")
def exits(path): os._exit(0)
def crashes(path): os.abort()
def hangs(path): time.sleep(60)
def works_on(path):
    while True: pass
def eats(path): return bytearray(1 << 30)
def warns(path):
    warnings.warn("overflow", RuntimeWarning)
    return Read("same")
def prints(path):
    os.write(2, b"codec: error")
    return Read("same")
def leaves_temporary(path):
    tempfile.mkstemp()
    return Read("same")
def leaves_beside(path):
    path.with_name(".hidden").touch()
    refuse(path)

folder = Path(tempfile.mkdtemp())
(folder / "x").write_bytes(b"x")
limits = ProcessLimits(memory_bytes=1 << 28, cpu_s=1, wall_s=3.0)
found = {{}}
for read in (loads, refuses, names_no_file, gives_no_remedy, raises, exits, crashes, hangs,
             works_on, eats, warns, prints, leaves_temporary, leaves_beside):
    found[read.__name__] = end_of(read, folder, folder / "x", limits).kind
print(json.dumps(found))
"""


def test_a_short_campaign_finds_no_defect(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "campaign.py"), "--files", "78", "--seed", "5"]
    environment = {k: v for k, v in os.environ.items() if k != "SIMCROP_TEST_DATA"}
    done = subprocess.run(
        [*command, "--lanes", "1", "--json", str(tmp_path / "tally.json")],
        capture_output=True,
        text=True,
        env={**environment, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads((tmp_path / "tally.json").read_text())
    assert tally["files"] == 78
    assert len(tally["formats"]) == 39
    assert set(tally["ended"]) == {"identical", "note", "refused", "changed"}
    assert tally["ended"]["refused"] > 20
    assert [p.name for p in tmp_path.iterdir()] == ["tally.json"]


def test_every_defect_would_be_seen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLANTED.format(here=str(HERE))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout) == {
        "loads": "loaded",
        "refuses": "refused",
        "names_no_file": "bad refusal",
        "gives_no_remedy": "bad refusal",
        "raises": "exception",
        "exits": "crash",
        "crashes": "crash",
        "hangs": "timeout",
        "works_on": "timeout",
        "eats": "memory",
        "warns": "noise",
        "prints": "noise",
        "leaves_temporary": "left behind",
        "leaves_beside": "left behind",
    }, done.stderr


def test_the_same_seed_makes_the_same_damage_and_silence_is_seen(tmp_path: Path) -> None:
    script = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import hashlib, json
from pathlib import Path
from campaign import Campaign
from fuzz_mutations import Damaged
from fuzz_process import Ending, Read
made = []
for name in ("a", "b"):
    campaign = Campaign(Path({str(tmp_path)!r}) / name, 3, None, "N")
    digest = hashlib.sha256()
    for seed, number in campaign.cases(60):
        digest.update(campaign.damaged(seed, number)[1].data)
    made.append(digest.hexdigest())
whole = Read("whole", (("a", "A."),))
sealed, bare = Damaged(b"", "bit flips", True), Damaged(b"", "bit flips", False)
ended = [
    campaign._class(Ending("loaded", read=Read(f, tuple(n))), whole, d)
    for f, n, d in (
        ("whole", [("a", "A.")], sealed), ("other", [("a", "A.")], sealed),
        ("other", [("a", "A.")], bare), ("other", [("a", "A."), ("b", "B.")], sealed),
    )
]
print(json.dumps([made[0] == made[1], ended]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    same, ended = json.loads(done.stdout)
    assert same, "the seed files or the damage depend on more than the seed"
    assert ended == ["identical", "silent", "changed", "note"]
