from pathlib import Path

import pytest

from basicsr.engine.run.retention import BestKeeper, keep_newest


@pytest.fixture
def run(tmp_path):
    """Checkpoints of iterations 2, 4, 6 and 10: a network and an adversary each."""
    for iteration in (2, 4, 6, 10):
        for name in (f"states/{iteration}.state", f"models/net_g_{iteration}.pth", f"models/net_d_{iteration}.pth"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
    return tmp_path


def keep(run, current_iter, count):
    networks = [f"net_g_{current_iter}.pth", f"net_d_{current_iter}.pth"]
    keep_newest(run / "states", run / "models", networks, current_iter, count)


def iterations(run):
    states = {int(p.stem) for p in (run / "states").glob("*.state")}
    networks = {int(p.stem.rsplit("_", 1)[1]) for p in (run / "models").glob("net_?_*.pth")}
    return states, networks


@pytest.mark.parametrize(("count", "kept"), [(1, {10}), (2, {6, 10}), (3, {4, 6, 10}), (9, {2, 4, 6, 10})])
def test_the_newest_are_kept(run, count, kept):
    keep(run, 10, count)
    assert iterations(run) == (kept, kept)


def test_later_iterations_than_the_present_are_not_touched(run):
    """The run was continued from an earlier state, the later one being damaged: it must not count as the newest."""
    keep(run, 6, 1)
    assert iterations(run) == ({6, 10}, {6, 10})


def test_networks_whose_state_is_gone_are_deleted_the_next_time(run):
    (run / "states" / "4.state").unlink()
    keep(run, 10, 2)
    assert iterations(run) == ({6, 10}, {6, 10})


def test_a_state_goes_before_its_networks(run, monkeypatch):
    order = []
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: order.append(self.name))
    keep(run, 10, 3)
    assert order[0] == "2.state"
    assert sorted(order[1:]) == ["net_d_2.pth", "net_g_2.pth"]


def test_files_of_other_names_are_not_touched(run):
    names = ["net_g_latest.pth", "net_g_best.pth", "net_x_2.pth", "net_g_2.pth.bak", "my_net_g_2.pth", "net_g_2_ft.pth"]
    for name in names:
        (run / "models" / name).touch()
    (run / "states" / "notes.state").touch()
    keep(run, 10, 1)
    assert {p.name for p in (run / "models").iterdir()} == {*names, "net_g_10.pth", "net_d_10.pth"}
    assert {p.name for p in (run / "states").iterdir()} == {"notes.state", "10.state"}


@pytest.fixture
def opt():
    return {
        "logger": {"keep_best": "Set5/psnr"},
        "datasets": {"train": {"name": "DIV2K", "phase": "train"}, "val": {"name": "Set5", "phase": "val"}},
        "val": {"val_freq": 10, "metrics": {"psnr": {}, "ssim": {}}},
    }


def test_the_best_is_the_iteration_that_holds_the_record(opt):
    best = BestKeeper(opt)
    record = {"Set5": {"psnr": {"better": "higher", "val": 31.0, "iter": 20}}}
    assert best.improved(record, 20)
    assert not best.improved(record, 30)
    assert not best.improved({}, 20), "a plug-in's validation may keep no records"
    del opt["logger"]["keep_best"]
    assert not BestKeeper(opt).improved(record, 20)
