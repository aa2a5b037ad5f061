import pytest

from basicsr.utils import dist_util


@pytest.mark.parametrize(
    ("node_list", "expected"),
    [
        ("gpu[03-05,9],cpu1", "gpu03"),
        ("node7", "node7"),
        ("a1,a2", "a1"),
        ("rack1-[12,14]", "rack1-12"),
    ],
)
def test_first_slurm_host(node_list, expected, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without scontrol
    assert dist_util.first_slurm_host(node_list) == expected


def test_launcher_without_its_variables(monkeypatch):
    for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(RuntimeError, match="--launcher pytorch needs the environment variables RANK, WORLD_SIZE"):
        dist_util.init_dist("pytorch")
    with pytest.raises(RuntimeError, match="--launcher slurm needs the environment variables SLURM_PROCID"):
        dist_util.init_dist("slurm")
    with pytest.raises(ValueError, match="--launcher mpi: expected none, pytorch or slurm"):
        dist_util.init_dist("mpi")


def test_slurm_variables_are_translated(monkeypatch):
    for key, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(key, value)
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("SLURM_NODELIST", "gpu[2-3]")
    monkeypatch.setenv("PATH", "")
    dist_util._export_slurm_env(port=1234)
    import os

    wanted = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu2", "MASTER_PORT": "1234"}
    assert {key: os.environ[key] for key in wanted} == wanted


def test_outside_a_process_group():
    assert dist_util.get_dist_info() == (0, 1)
    assert dist_util.master_only(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize(
    ("named", "cuda", "expected"),
    [
        (None, False, "gloo"),
        ("nccl", False, "gloo"),
        (None, True, "cpu:gloo,cuda:nccl"),
        ("nccl", True, "cpu:gloo,cuda:nccl"),
        ("gloo", True, "cpu:gloo,cuda:gloo"),
    ],
)
def test_nccl_for_gpus_and_gloo_for_the_cpu(named, cuda, expected):
    assert dist_util.group_backend(named, cuda) == expected
