"""Another distribution called `basicsr`, such as PyPI's, in the folder of ours, or before it on Python's path.

Each test makes an installation of a few files: `basicsr_kd` with a record of its files, and `basicsr` installed over
it, below it, or elsewhere.
"""

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from basicsr.cli import main
from basicsr.commands import doctor
from basicsr.utils import installation
from basicsr.utils.installation import Conflict, find_conflict, require_own_files
from basicsr.utils.options import command_line

OURS = {"__init__.py": "# ours\n", "train.py": "# ours\n", "utils/options/__init__.py": "# ours\n"}
THEIRS = {
    "__init__.py": "# theirs\n",
    "train.py": "# theirs\n",
    "utils/options.py": "# theirs\n",
    "ops/__init__.py": "",
}


def install(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    """What pip does: write the files over any that are there, and a record of them."""
    rows = []
    for file, text in files.items():
        target = site / "basicsr" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"basicsr/{file},sha256={digest},{len(text)}\n")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(rows))


def found(site: Path, path: Path | None = None) -> Conflict | None:
    return find_conflict((site / "basicsr").resolve(), [str(path or site)])


def test_ours_alone_is_as_it_should_be(tmp_path):
    install(tmp_path, "basicsr-kd", "0.1", OURS)
    assert found(tmp_path) is None


def test_installed_over_ours(tmp_path):
    install(tmp_path, "basicsr-kd", "0.1", OURS)
    install(tmp_path, "basicsr", "1.4.2", THEIRS)
    conflict = found(tmp_path)
    assert (conflict.replaced, conflict.added) == (("__init__.py", "train.py"), ("utils/options.py",))
    assert "basicsr 1.4.2 was installed over basicsr-kd" in str(conflict)
    assert "(__init__.py, train.py)" in str(conflict) and "--force-reinstall --no-deps basicsr-kd" in str(conflict)


def test_ours_installed_over_it(tmp_path):
    install(tmp_path, "basicsr", "1.4.2", THEIRS)
    install(tmp_path, "basicsr-kd", "0.1", OURS)
    conflict = found(tmp_path)
    assert (conflict.replaced, conflict.added) == ((), ("utils/options.py",))
    assert "1 of the files belong to it (utils/options.py)" in str(conflict)


def test_installed_elsewhere(tmp_path, monkeypatch):
    install(tmp_path / "checkout", "basicsr-kd", "0.1", OURS)
    install(tmp_path / "site", "basicsr", "1.4.2", THEIRS)
    conflict = found(tmp_path / "checkout", tmp_path / "site")
    assert conflict.elsewhere == (tmp_path / "site" / "basicsr").resolve()
    assert f"installed in {conflict.elsewhere}" in str(conflict) and "pip uninstall basicsr" in str(conflict)
    # where ours is installed properly, Python's own order has chosen it
    monkeypatch.setattr(installation.site, "getsitepackages", lambda: [str(tmp_path / "checkout")])
    assert found(tmp_path / "checkout", tmp_path / "site") is None


def test_a_broken_package_says_whose_files_it_has(tmp_path):
    """The import fails with the sentence, in a process that has nothing of ours but the module itself."""
    own = OURS | {"utils/installation.py": Path(installation.__file__).read_text()}
    own |= {"archs/net_arch.py": "from basicsr.utils.installation import require_own_files\nrequire_own_files()\n"}
    install(tmp_path, "basicsr-kd", "0.1", own)
    program = [sys.executable, "-c", "import basicsr.archs.net_arch"]
    arguments = {"capture_output": True, "text": True, "cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path)}}
    assert subprocess.run(program, **arguments).returncode == 0
    install(tmp_path, "basicsr", "1.4.2", THEIRS)
    done = subprocess.run(program, **arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: basicsr 1.4.2 was installed over basicsr-kd in")


def test_every_network_of_ours_requires_own_files():
    archs = Path(installation.PACKAGE) / "archs"
    assert "require_own_files()" in (archs / "size_requirement.py").read_text()
    require_own_files()


CONFLICT = Conflict("basicsr 1.4.2", Path("/here/basicsr"), replaced=("__init__.py",))


def test_doctor_fails_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "find_conflict", lambda: None)
    fails_anyway = main(["doctor"])
    capsys.readouterr()
    monkeypatch.setattr(doctor, "find_conflict", lambda: CONFLICT)
    assert main(["doctor"]) == 1
    assert f"FAILED: {CONFLICT}" in capsys.readouterr().out
    assert fails_anyway == 0


@pytest.mark.parametrize("is_train", [True, False])
def test_runs_log_it(tmp_path, monkeypatch, is_train):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lq").mkdir()
    (tmp_path / "lq" / "a.png").touch()
    pairs = "type: PairedImageDataset, dataroot_gt: lq, dataroot_lq: lq"
    train = (
        f"datasets: {{train: {{name: a, {pairs}, gt_size: 8, batch_size_per_gpu: 1, num_worker_per_gpu: 0}}}}\n"
        "train: {total_iter: 1, optim_g: {type: Adam, lr: 0.1}, scheduler: {type: MultiStepLR, milestones: [1]},"
        " pixel_opt: {type: L1Loss}}\nlogger: {print_freq: 1, save_checkpoint_freq: 1}\n"
    )
    test = "datasets: {test: {name: a, type: SingleImageDataset, dataroot_lq: lq}}\n"
    (tmp_path / "x.yml").write_text(
        "name: x\nmodel_type: SRModel\nscale: 2\nnum_gpu: 0\nmanual_seed: 0\n"
        "network_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 2}\n" + (train if is_train else test)
    )
    monkeypatch.setattr(sys, "argv", ["program", "-opt", "x.yml"])
    monkeypatch.setattr(command_line, "find_conflict", lambda: CONFLICT)
    _, args = command_line.parse_options(str(tmp_path), is_train)
    assert str(CONFLICT) in args.notices
