"""Several processes: launchers, hosts, restarts, and plain errors where one of them is missing, wrong or gone."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from ..helpers import REPOSITORY, assert_equal, finish, free_port, log_text, to_test_options, weights

PLUGIN = str(Path(__file__).with_name("fault_plugin.py"))


@pytest.fixture
def options(options):
    options["imports"] = [PLUGIN]
    options["datasets"]["train"] |= {"batch_size_per_gpu": 2, "dataset_enlarge_ratio": 3}
    options["val"]["metrics"] = {"psnr": options["val"]["metrics"]["psnr"]}
    return options


def assert_same_weights(launcher, one, other):
    folders = (launcher.folder(name) for name in (one, other))
    assert_equal(*map(weights, folders), "weights")


def launch_ranks(launcher, options, environments, *arguments):
    """Processes that are told their place as the test likes."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "BASICSR_JOIN_TIMEOUT": "2"}
    arguments += ("--launcher", "pytorch")
    return [launcher.start(options, *arguments, **(place | env)) for env in environments]


# Where the data do not divide


def test_uneven_data(launcher, options):
    """Three ranks; four training images, an epoch that fills no last batch, and two validation images."""
    meta = launcher.root / "meta.txt"
    meta.write_text("img.0.png (40,48,3)\nimg.2.png (44,48,3)\n")
    options["datasets"]["val"]["meta_info_file"] = str(meta)
    options["datasets"]["train"] |= {"dataset_enlarge_ratio": 2, "batch_size_per_gpu": 2}
    finish(launcher.start_ranks(3, options))
    report = json.loads((launcher.folder() / "validation.json").read_text())["datasets"]["val"]
    assert sorted(report["images"]) == ["img.0", "img.2"]
    test_options = to_test_options(options, launcher.folder() / "models" / "net_g_12.pth")
    for world in (1, 3):
        finish(launcher.start_ranks(world, test_options, entry="test"))
        results = json.loads((launcher.root / "results" / "tiny_test" / "results.json").read_text())
        assert results["datasets"]["val"] == report


def test_resuming_on_three_ranks_is_bit_identical(launcher, options):
    finish(launcher.start_ranks(3, options | {"name": "whole"}))
    runs = launcher.start_ranks(3, options, each={1: {"FAULT": "step:7:SIGKILL"}})
    assert [run.wait() for run in runs] == [1, -signal.SIGKILL, 1]
    finish(launcher.start_ranks(3, options, "--auto_resume"))
    assert_same_weights(launcher, "whole", "tiny")


def test_resuming_on_another_number_of_ranks(launcher, options):
    """It goes on where the data stood, and says that the random numbers are others."""
    first = launcher.start_ranks(2, options, each={0: {"FAULT": "step:6:SIGTERM"}}, SLOW="0.25")
    assert [run.wait() for run in first] == [75, 75]
    runs = launcher.start_ranks(1, options, "--auto_resume")
    finish(runs)
    assert "holds the random state of 2 processes and this run has 1" in runs[0].text
    # Two ranks took 4 samples an iteration, one takes 2, and an epoch has 12. The ranks agree on where they stop.
    stopped = int(re.search(r"after iteration (\d+), which is saved", first[0].text)[1])
    expected = [((4 * stopped + 2 * (i - stopped - 1)) // 12, i) for i in range(stopped + 1, 13)]
    lines = re.findall(r"\[epoch: *(\d+), iter: *(\d+),", runs[0].text)
    assert [(int(epoch), int(iteration)) for epoch, iteration in lines] == expected


def test_training_set_smaller_than_the_world(launcher, options):
    meta = launcher.root / "meta.txt"
    meta.write_text("img.0.png (40,48,3)\n")
    options["datasets"]["train"] |= {"meta_info_file": str(meta), "dataset_enlarge_ratio": 1, "batch_size_per_gpu": 1}
    options["train"]["total_iter"] = 3
    finish(launcher.start_ranks(2, options))
    options["datasets"]["train"]["batch_size_per_gpu"] = 2
    runs = launcher.start_ranks(2, options)
    assert [run.wait() for run in runs] == [2, 2]
    assert "Set dataset_enlarge_ratio to at least 2" in runs[0].text


UNUSED = """
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class PartlyUnusedEDSR(EDSR):
    def __init__(self, num_feat: int = 4, upscale: int = 2):
        super().__init__(3, 3, num_feat, 1, upscale)
        self.spare = torch.nn.Conv2d(3, 3, 1)
"""


def test_find_unused_parameters(launcher, options):
    plugin = launcher.root / "unused.py"
    plugin.write_text(UNUSED)
    options |= {"imports": [str(plugin)], "network_g": {"type": "PartlyUnusedEDSR"}}
    options["train"]["kd_opt"].pop("feat")
    finish(launcher.start_ranks(2, options | {"find_unused_parameters": True}))
    runs = launcher.start_ranks(2, options)
    assert 1 in [run.wait() for run in runs]
    assert "find_unused_parameters" in runs[0].text


def test_every_rank_draws_its_own_random_numbers(launcher, options):
    plugin = launcher.root / "drawing.py"
    plugin.write_text(
        "import numpy, random, torch\n"
        "from basicsr.models.kd_model import KDModel\n"
        "original = KDModel.optimize_parameters\n"
        "def optimize_parameters(self, current_iter):\n"
        "    if current_iter == 2:\n"
        "        print('drawn', random.random(), numpy.random.rand(), torch.rand(1).item(), flush=True)\n"
        "    original(self, current_iter)\n"
        "KDModel.optimize_parameters = optimize_parameters\n"
    )
    options["train"]["total_iter"] = 2
    options["imports"] = [str(plugin)]
    draws = []
    for _ in range(2):
        runs = launcher.start_ranks(2, options)
        finish(runs)
        draws += [re.search(r"drawn (\S+) (\S+) (\S+)", run.text).groups() for run in runs]
    assert draws[:2] == draws[2:], "the same numbers each time"
    assert all(a != b for a, b in zip(*draws[:2])), "different ones on each rank"


def test_a_teacher_without_weights_is_the_same_on_every_rank(launcher, options):
    plugin = launcher.root / "telling.py"
    plugin.write_text(
        "from basicsr.models.kd_model import KDModel\n"
        "original = KDModel.setup_optimizers\n"
        "def setup_optimizers(self):\n"
        "    print('teacher', sum(p.double().sum().item() for p in self.frozen['t'].parameters()), flush=True)\n"
        "    return original(self)\n"
        "KDModel.setup_optimizers = setup_optimizers\n"
    )
    options["train"]["total_iter"] = 1
    runs = launcher.start_ranks(2, options | {"imports": [str(plugin)]})
    finish(runs)
    one, other = (re.search(r"teacher (\S+)", run.text)[1] for run in runs)
    assert one == other


# Ranks that are missing, wrong or gone


def test_a_missing_rank_is_named(launcher, options):
    runs = launch_ranks(launcher, options, [{"RANK": "0", "WORLD_SIZE": "3"}, {"RANK": "2", "WORLD_SIZE": "3"}])
    assert [run.wait() for run in runs] == [1, 1]
    for run in runs:
        assert "error: WORLD_SIZE=3, but rank 1 did not join within 2 s; present: rank 0 (host " in run.text
        assert "Traceback" not in run.text


def test_different_world_sizes_are_named(launcher, options):
    runs = launch_ranks(launcher, options, [{"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "1", "WORLD_SIZE": "4"}])
    assert [run.wait() for run in runs] == [1, 1]
    for run in runs:
        assert re.search(
            r"error: rank 1 \(.*\) was started with WORLD_SIZE=4, rank 0 \(.*\) with WORLD_SIZE=2", run.text
        )


def test_a_rank_beyond_rank_0s_world_is_told(launcher, options):
    runs = launch_ranks(launcher, options, [{"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "3", "WORLD_SIZE": "4"}])
    assert [run.wait() for run in runs] == [1, 1]
    assert "WORLD_SIZE=2, but rank 1 did not join" in runs[0].text
    assert re.search(r"rank 3 .* (was not called|lost rank 0)", runs[1].text)


def test_a_rank_that_is_taken_twice_is_named(launcher, options):
    runs = launch_ranks(launcher, options, [{"RANK": r, "WORLD_SIZE": "3"} for r in "011"])
    assert [run.wait() for run in runs] == [1, 1, 1]
    assert any("two processes have RANK=1" in run.text for run in runs[1:])


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 with WORLD_SIZE=2: ranks count from 0"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK must be a whole number, not 'x'"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "rank 1 found nobody at 127.0.0.1:"),
        ({"RANK": "0"}, "needs the environment variables WORLD_SIZE, which are not set"),
    ],
)
def test_a_wrong_place_is_told_in_a_sentence(launcher, options, environment, message):
    (run,) = launch_ranks(launcher, options, [environment])
    assert run.wait() == 1
    assert message in run.text
    assert "Traceback" not in run.text


def test_a_port_in_use_is_named(launcher, options):
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        s.listen()
        port = str(s.getsockname()[1])
        (run,) = launch_ranks(launcher, options, [{"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": port}])
        assert run.wait() == 1
    assert f"rank 0 cannot listen at port {port}" in run.text


@pytest.mark.parametrize("dead", [0, 1])
def test_a_killed_rank_ends_the_others(launcher, options, dead):
    options["logger"]["print_freq"] = 100
    runs = launcher.start_ranks(2, options, each={dead: {"FAULT": "step:6:SIGKILL"}})
    start = time.monotonic()
    codes = [run.wait() for run in runs]
    assert codes[dead] == -signal.SIGKILL
    assert codes[1 - dead] == 1
    assert time.monotonic() - start < 60
    survivor = runs[1 - dead].text
    assert re.search(rf"ERROR: The run ends: rank {dead} \(host .*\)", survivor), survivor
    assert "--auto_resume continues from it" in survivor
    assert "Traceback" not in survivor


@pytest.mark.parametrize("place", ["step", "image", "write"])
def test_an_error_of_one_rank_reaches_the_others(launcher, options, place):
    """Its reason is in the log of rank 0, whether it comes in training or while the others wait in a validation."""
    rank = 0 if place == "write" else 1
    runs = launcher.start_ranks(2, options, each={rank: {"FAULT": f"{place}:2:raise"}})
    assert [run.wait() for run in runs] == [1, 1]
    assert "the plug-in raised this" in runs[rank].text
    if rank == 1:
        log = log_text(launcher.folder())
        assert re.search(r"rank 1 \(.*\) failed with ValueError: the plug-in raised this", log)
    assert "Traceback" not in runs[1 - rank].text


# Launchers


def test_slurm_starts_two_processes(launcher, options):
    finish(launcher.start_ranks(2, options | {"name": "torchrun"}))
    slurm = {"SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1"}
    options["dist_params"] = {"port": int(free_port())}
    finish(
        [
            launcher.start(options, "--launcher", "slurm", SLURM_PROCID=rank, SLURM_LOCALID=rank, **slurm)
            for rank in "01"
        ]
    )
    assert_same_weights(launcher, "torchrun", "tiny")


def write_options(launcher, options):
    path = launcher.root / f"{options['name']}.yml"
    own = {"experiments_root": f"{launcher.root}/experiments", "pretrain_network_t": "random"}
    path.write_text(yaml.safe_dump({**options, "path": own}))
    return str(path)


def start(launcher, command, **environment):
    """A command in its own process, with its output in a file."""
    output = launcher.root / f"output_{time.monotonic_ns()}.txt"
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with open(output, "w") as file:
        return subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=file, stderr=file), output


def torchrun(launcher, options, *arguments, prefix=(), **environment):
    command = [*prefix, sys.executable, "-m", "torch.distributed.run", *arguments, "basicsr/train.py"]
    command += ["-opt", write_options(launcher, options), "--launcher", "pytorch"]
    return start(launcher, command, **environment)


def wait_for(outputs, processes, timeout=180):
    try:
        codes = [process.wait(timeout) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        raise AssertionError("\n".join(output.read_text()[-3000:] for output in outputs)) from None
    return codes


@pytest.fixture
def dies_once(launcher):
    """A plug-in by which rank 1 is killed in iteration 7, but only the first time."""
    plugin = launcher.root / "once.py"
    plugin.write_text(
        "import os, pathlib\n"
        f"flag = pathlib.Path({str(launcher.root / 'died')!r})\n"
        "if os.environ['RANK'] == '1' and not flag.exists():\n"
        "    flag.touch()\n"
        "    os.environ['FAULT'] = 'step:7:SIGKILL'\n"
    )
    return [str(plugin), PLUGIN]


def assert_restarted(launcher, options, started):
    codes = wait_for([output for _, output in started], [process for process, _ in started])
    text = "\n".join(output.read_text()[-3000:] for _, output in started)
    assert codes == [0] * len(started), text
    assert "Resuming training from epoch: 1, iter: 4." in log_text(launcher.folder()), text
    finish(launcher.start_ranks(2, options | {"name": "whole", "imports": []}))
    assert_same_weights(launcher, "whole", "tiny")


def test_dist_train_restarts_exactly(launcher, options, dies_once):
    """``scripts/dist_train.sh`` with MAX_RESTARTS: all ranks are restarted, and continue by themselves."""
    command = ["bash", "scripts/dist_train.sh", "2", write_options(launcher, options | {"imports": dies_once})]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert_restarted(launcher, options, [start(launcher, command, PATH=path, PORT=free_port(), MAX_RESTARTS="1")])


def test_two_hosts_restart_exactly(launcher, options, dies_once):
    """Two torchruns meet by TCP; a rank on the second dies; only one of them need have counted that as a restart."""
    hosts = ("--nnodes=2", "--nproc_per_node=1", "--max-restarts=1", "--rdzv_backend=c10d", "--rdzv_id=test")
    hosts += (f"--rdzv_endpoint=127.0.0.1:{free_port()}",)
    assert_restarted(
        launcher, options, [torchrun(launcher, options | {"imports": dies_once}, *hosts) for _ in range(2)]
    )


def test_torchrun_passes_signals_on(launcher, options):
    """SIGTERM to torchrun: both ranks stop after the same iteration, and the run continues from it."""
    process, output = torchrun(
        launcher, options | {"name": "tiny"}, "--nproc_per_node=2", f"--master_port={free_port()}", SLOW="0.2"
    )
    deadline = time.monotonic() + 60
    while "iter:       2" not in output.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    (code,) = wait_for([output], [process])
    assert code != 0
    assert len(re.findall(r"Stopped by SIGTERM after iteration \d+, which is saved", output.read_text())) == 1
    finish(launcher.start_ranks(2, options, "--auto_resume"))
    finish(launcher.start_ranks(2, options | {"name": "whole"}))
    assert_same_weights(launcher, "whole", "tiny")


@pytest.fixture
def network_namespaces():
    """Two hosts as far as the network is concerned, joined by a cable: their names and the address of the first."""
    names = [f"basicsr{os.getpid()}{letter}" for letter in "ab"]
    cables = [f"b{os.getpid() % 100000}{letter}" for letter in "ab"]
    with ExitStack() as stack:

        def ip(*arguments):
            return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)

        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for number, (name, cable) in enumerate(zip(names, cables)):
                ip("link", "set", cable, "netns", name)
                ip("-n", name, "addr", "add", f"10.231.7.{number + 1}/24", "dev", cable)
                ip("-n", name, "link", "set", cable, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here ({getattr(error, 'stderr', error)})")
        yield list(zip(names, cables)), "10.231.7.1"


def test_two_network_namespaces(launcher, options, network_namespaces):
    """Two hosts that see each other by a network alone."""
    hosts, address = network_namespaces
    port = free_port()
    started = []
    for rank, (namespace, cable) in enumerate(hosts):
        arguments = ("--nnodes=2", f"--node_rank={rank}", f"--master_addr={address}", f"--master_port={port}")
        prefix = ("ip", "netns", "exec", namespace)
        started.append(torchrun(launcher, options, *arguments, prefix=prefix, GLOO_SOCKET_IFNAME=cable))
    codes = wait_for([output for _, output in started], [process for process, _ in started])
    assert codes == [0, 0], "\n".join(output.read_text()[-3000:] for _, output in started)
    finish(launcher.start_ranks(2, options | {"name": "whole"}))
    assert_same_weights(launcher, "whole", "tiny")
