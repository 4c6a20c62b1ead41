"""A short campaign over all formats, and a check that the campaign would see each defect."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from campaign import Campaign
from fuzz_mutations import Anatomy, Damaged, damage
from fuzz_process import Ending, Read

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


_SHORT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import campaign
from fuzz_seeds import built_seeds

folder = Path({folder!r})
sys.argv = ["campaign.py", "--files", "78", "--seed", "5", "--lanes", "1",
            "--json", str(folder / "tally.json")]
status = campaign.main()
left = sorted(p.name for p in folder.iterdir())
assert left == ["tally.json"], left
made = []
for name in ("a", "b"):
    seeds = built_seeds(folder / name)
    made.append([(s.format, t, (s.folder / t).read_bytes()) for s in seeds for t in s.targets])
assert made[0] == made[1], "the seed files are not the same each time"
sys.exit(status)
"""


@pytest.mark.slow
def test_a_short_campaign_finds_no_defect_and_can_be_repeated(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "SIMCROP_TEST_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", _SHORT.format(here=str(HERE), folder=str(tmp_path))],
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


def test_the_same_damage_again() -> None:
    data = bytes(range(256)) * 4
    anatomy = Anatomy(fields=((8, "<i"), (16, "<f")), text_to=64, sealed_from=100)
    made = [
        [damage(random.Random(n), data, anatomy, [data[::-1]]) for n in range(300)]
        for _ in range(2)
    ]
    assert made[0] == made[1]
    for damaged in made[0]:
        assert damaged.data != data
        assert not damaged.sealed or damaged.data[:100] == data[:100]
    assert len({damaged.mutation for damaged in made[0]}) == 12


@pytest.mark.parametrize(
    ("fingerprint", "notes", "sealed", "ended"),
    [
        ("whole", ("A",), True, "identical"),
        ("other", ("A",), True, "silent"),
        ("other", ("A",), False, "changed"),
        ("other", ("A", "B"), True, "note"),
        ("other", (), True, "silent"),
    ],
)
def test_another_scan_without_a_word_is_seen(
    fingerprint: str, notes: tuple[str, ...], sealed: bool, ended: str
) -> None:
    whole = Read("whole", (("a", "A"),))
    read = Read(fingerprint, tuple((n.lower(), n) for n in notes))
    damaged = Damaged(b"", "bit flips", sealed)
    assert Campaign._class(Ending("loaded", read=read), whole, damaged) == ended
