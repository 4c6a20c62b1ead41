"""The loader's order, ranks, state and quarantine."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from made_store import made_store

from simcrop_core.counter_random import seed_of
from simcrop_core.errors import SimCroPError
from simcrop_core.store import Loader, RawBatch, Store, open_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store(tmp_path_factory.mktemp("store") / "s", 11)


def same(a: RawBatch, b: RawBatch) -> bool:
    ours, theirs = a.tensors(), b.tensors()
    return (
        ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
        and (a.epoch, a.step, a.ids) == (b.epoch, b.step, b.ids)
    )


def loader(store: Store, **options: object) -> Loader:
    return Loader(store, **{"batch_size": 2, "seed": 7, "workers": 2, **options})  # type: ignore


def test_an_epoch_is_a_permutation_by_seed_and_epoch(store: Store) -> None:
    ours = loader(store)
    first, second = ours.order(0), ours.order(1)
    assert sorted(first) == sorted(second) == list(range(11))
    assert len({first, second, loader(store, seed=8).order(0), tuple(range(11))}) == 4
    assert loader(store, workers=0, batch_size=5).order(1) == second
    seen = [i for raw in islice(ours, 5) for i in raw.index_B.tolist()]
    assert seen == list(first[:10])
    subset = loader(store, indices=[3, 5, 9])
    assert sorted(subset.order(4)) == [3, 5, 9]


def test_a_studys_seed_is_its_own(store: Store) -> None:
    for raw in islice(loader(store), 7):
        for index, seed in zip(raw.index_B.tolist(), raw.seeds_B.tolist(), strict=True):
            assert seed == seed_of(7, raw.epoch, index)


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 5, "prefetch": 4}])
def test_batches_do_not_depend_on_threads(store: Store, options: dict[str, int]) -> None:
    plain = list(loader(store, epochs=2, structures=True))
    other = list(loader(store, epochs=2, structures=True, **options))
    assert len(plain) == len(other) == 10
    assert all(same(a, b) for a, b in zip(plain, other, strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_together_see_the_larger_batch(store: Store, shuffle: bool) -> None:
    options = {"epochs": 2, "shuffle": shuffle}
    one = list(loader(store, batch_size=4, **options))
    ranks = [list(loader(store, rank=r, world_size=2, **options)) for r in range(2)]
    assert len(one) == len(ranks[0]) == len(ranks[1]) == 4
    for whole, *parts in zip(one, *ranks, strict=True):
        assert [i for p in parts for i in p.ids] == list(whole.ids)
        for name in ("volume_BXYZ", "seeds_B", "sentences_BSD", "tokens_BL", "facts_BFSL"):
            joined = torch.cat([p.tensors()[name] for p in parts])
            assert torch.equal(joined, whole.tensors()[name])


def test_what_is_left_over(store: Store) -> None:
    dropped = [len(raw) for raw in loader(store, batch_size=4, epochs=1)]
    kept = [
        raw.ids for raw in loader(store, batch_size=4, epochs=1, drop_last=False, shuffle=False)
    ]
    assert dropped == [4, 4]
    assert [len(ids) for ids in kept] == [4, 4, 3]
    assert [i for ids in kept for i in ids] == list(store.ids)
    options = {"batch_size": 4, "epochs": 1, "drop_last": False, "world_size": 2}
    assert [len(raw) for raw in loader(store, rank=0, **options)] == [4, 3]
    assert [len(raw) for raw in loader(store, rank=1, **options)] == [4]
    with pytest.raises(SimCroPError, match="11 studies for a global batch of 12"):
        loader(store, batch_size=6, world_size=2)


@pytest.mark.parametrize("stop", [0, 1, 3, 5, 7])
def test_resuming_in_mid_epoch_gives_the_same_batches(store: Store, stop: int) -> None:
    whole = list(loader(store, epochs=2))
    begun = loader(store, epochs=2, workers=3, prefetch=3)
    running = iter(begun)
    for _ in range(stop):
        next(running)
    state = json.loads(json.dumps(begun.state_dict()))  # it travels in a checkpoint
    running.close()
    resumed = loader(store, epochs=2, workers=1)
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(whole) - stop
    assert all(same(a, b) for a, b in zip(whole[stop:], rest, strict=True))


def test_a_run_resumes_with_other_processes_but_not_with_other_data(store: Store) -> None:
    begun = loader(store, batch_size=4)
    whole = list(islice(begun, 3))
    again = loader(store, batch_size=4)
    next(iter(again))
    for rank in range(2):
        part = loader(store, rank=rank, world_size=2)
        part.load_state_dict(again.state_dict())
        assert next(iter(part)).ids == whole[1].ids[2 * rank : 2 * rank + 2]
    for changed, word in (
        ({"seed": 8}, "seed"),
        ({"batch_size": 5}, "global batch"),
        ({"batch_size": 4, "indices": range(9)}, "number of studies"),
    ):
        with pytest.raises(SimCroPError, match=word):
            loader(store, **{"batch_size": 4, **changed}).load_state_dict(again.state_dict())


def test_a_store_with_other_content_does_not_resume(store: Store, tmp_path: Path) -> None:
    other = made_store(tmp_path, 10)
    with pytest.raises(SimCroPError, match="store"):
        loader(other).load_state_dict(loader(store).state_dict())


def test_leaving_a_loader_ends_its_threads(store: Store) -> None:
    import threading

    before = threading.active_count()
    running = iter(loader(store, prefetch=3))
    next(running)
    assert threading.active_count() > before
    running.close()
    assert threading.active_count() == before


# -- damaged studies ----------------------------------------------------------------------------


def damage(store: Store, index: int, how: str) -> None:
    path = store.path("volumes", store.ids[index])
    if how == "absent":
        path.unlink()
    elif how == "short":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 8
        path.write_bytes(data)


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Store:
    shutil.copytree(store.folder, tmp_path / "copy")
    return open_store(tmp_path / "copy")


@pytest.mark.parametrize("how", ["absent", "short", "flipped"])
def test_a_damaged_study_is_replaced_the_same_way_each_time(copy: Store, how: str) -> None:
    quarantine = copy.folder.parent / "run" / "quarantine.jsonl"
    whole = list(loader(copy, epochs=2))
    damage(copy, 4, how)
    ours = loader(copy, epochs=2, quarantine=quarantine)
    batches = list(ours)
    assert len(batches) == len(whole)
    for before, after in zip(whole, batches, strict=True):
        assert torch.equal(before.seeds_B, after.seeds_B)  # the augmentation is the lost study's
        for row, index in enumerate(before.index_B.tolist()):
            if index == 4:
                assert after.index_B[row] != 4
                stored = torch.from_numpy(copy.volume(int(after.index_B[row])))
                assert torch.equal(after.volume_BXYZ[row], stored)
            else:
                assert after.index_B[row] == index
    again = list(loader(copy, epochs=2, workers=0))
    assert all(same(a, b) for a, b in zip(batches, again, strict=True))
    (line,) = quarantine.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["study"], entry["index"], entry["rank"]) == ("made-004", 4, 0)
    assert entry["code"] == ("missing-record" if how == "absent" else "damaged-record")
    # A resumed run knows it from the list and does not list it again.
    resumed = loader(copy, epochs=2, quarantine=quarantine)
    assert len(resumed.quarantine) == 1
    assert all(same(a, b) for a, b in zip(batches, resumed, strict=True))
    assert len(quarantine.read_text().splitlines()) == 1


def test_more_than_one_in_a_thousand_stop_the_run(copy: Store) -> None:
    damage(copy, 4, "flipped")
    damage(copy, 6, "absent")
    with pytest.raises(SimCroPError, match="2 of the store's studies") as refused:
        list(loader(copy, epochs=1, drop_last=False))
    assert refused.value.code == "too-many-damaged"


def test_the_last_study_cannot_be_replaced(copy: Store) -> None:
    damage(copy, 4, "flipped")
    with pytest.raises(SimCroPError, match="none is left"):
        list(loader(copy, epochs=1, batch_size=1, indices=[4]))


def test_processes_count_together(copy: Store) -> None:
    quarantine = copy.folder.parent / "quarantine.jsonl"
    order = loader(copy).order(0)
    damage(copy, order[0], "absent")  # rank 0 meets it
    damage(copy, order[2], "absent")  # rank 1 meets it
    options = {"world_size": 2, "epochs": 1, "quarantine": quarantine}
    next(iter(loader(copy, rank=0, **options)))
    with pytest.raises(SimCroPError, match="damaged or missing"):
        next(iter(loader(copy, rank=1, **options)))
    assert len(quarantine.read_text().splitlines()) == 2


def test_what_may_be_replaced_grows_with_the_store(store: Store) -> None:
    allowed = loader(store).quarantine.allowed
    assert allowed == 1
    many = Store(store.folder, "x", store.settings, store.rows[:1] * 47_149, (), store.text)
    assert loader(many, indices=range(32)).quarantine.allowed == 47


def test_a_line_cut_short_by_a_crash_is_no_trouble(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text('{"study": "made-003", "index": 3}\n{"study": "made-0')
    assert len(loader(store, quarantine=path).quarantine) == 1
