"""Two ranks with different batches hold the same, whatever their terms log, keep and when they start."""

from pathlib import Path

import pytest
import torch

from ..helpers import finish

PLUGIN = str(Path(__file__).with_name("ranks_plugin.py"))
STATISTICS = ("running_mean", "running_var")


@pytest.fixture
def told(launcher, options):
    """What the two ranks hold after each of four iterations."""
    options |= {"imports": [PLUGIN], "network_g": {"type": "NormedEDSR"}}
    options["datasets"]["train"] |= {"batch_size_per_gpu": 2, "dataset_enlarge_ratio": 8}
    train = options["train"]
    train |= {"total_iter": 4, "optim_g": {"type": "AdamW", "lr": 1e-2, "weight_decay": 0.5}}
    train["kd_opt"] = {"critic": {"type": "NormedCritic"}, "late": {**train["kd_opt"]["feat"], "start": 4}}
    options["val"]["val_freq"] = 100
    runs = launcher.start_ranks(2, options, TELL=str(launcher.root / "told"))
    finish(runs)
    return [torch.load(launcher.root / f"told_{rank}", weights_only=True) for rank in (0, 1)]


def test_two_ranks_hold_the_same(told):
    for iteration, held in enumerate(zip(*told), 1):
        for kind in ("terms", "average"):
            one, other = (rank[kind] for rank in held)
            names = [name for name in one if name.endswith(STATISTICS)]
            assert len(names) == 2
            differing = [name for name in one if not torch.equal(one[name], other[name])]
            assert differing == [], f"{kind} after iteration {iteration}"
    for kind, name in (("terms", "critic.net.1.running_mean"), ("average", "conv_first.1.running_mean")):
        assert not torch.equal(told[0][0][kind][name], told[0][1][kind][name]), f"{name} follows the batches"

    # A scalar is the mean over the ranks that have it, in the same order on both.
    for iteration, held in enumerate(zip(*told), 1):
        one, other = ({name: value.item() for name, value in rank["log"].items()} for rank in held)
        assert list(one.items()) == list(other.items())
        logged = {name: value for name, value in one.items() if name.startswith("critic_")}
        expected = {"critic_both": 1.5, "critic_one": 5.0} | ({"critic_zero": 3.0} if iteration % 2 else {})
        assert logged == expected

    # The adapter of a term that starts later has no gradient, and so no weight decay either.
    adapter = [held["terms"]["late.adapters.0.weight"] for held in told[0]]
    assert torch.equal(adapter[0], adapter[1]) and torch.equal(adapter[0], adapter[2])
    assert not torch.equal(adapter[2], adapter[3])
