"""docs/adding_a_network.md: its network is trained, distilled and tested by its own files and commands."""

import pytest

from basicsr.utils.options import read_options
from basicsr.utils.options.errors import OptionError

from .helpers import logged_values
from .pages import Page, make_folder, run_command

PAGE = Page("adding_a_network.md")
DATA = [line for line in Page("denoising.md").commands() if line.startswith("basicsr prepare subimages")]


def test_its_commands_work(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, PAGE)
    commands = PAGE.commands()
    assert sorted(PAGE.files()) == ["test_tiny_unet.py", "tiny_unet.yml", "tiny_unet_arch.py", "tiny_unet_skd.yml"]
    assert len(DATA) == 2 and len(commands) == 5
    for command in DATA + commands:
        run_command(command, folder, monkeypatch, ["path:pretrain_network_t=random"] if "skd" in command else [])
    run = folder / "experiments" / "tiny_unet_skd"
    assert len(logged_values(run, "l_mca")) == len(logged_values(run, "l_pix")) == 2
    assert (folder / "results" / "tiny_unet" / "chelsea.png").is_file()


def test_the_signature_is_the_schema(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, PAGE)
    file, text = folder / "tiny_unet.yml", PAGE.files()["tiny_unet.yml"]
    monkeypatch.chdir(folder)
    assert read_options(file)[1] == []
    file.write_text(text.replace("width: 12", "levels: 9"))
    (notice,) = read_options(file)[1]
    assert "TinyUNet hints at an integer ≥ 1 and ≤ 5, not 9" in notice
    file.write_text(text.replace("width: 12", "widht: 12"))
    with pytest.raises(OptionError, match=r"network_g\.widht .*did you mean 'width'"):
        read_options(file)


@pytest.mark.parametrize("check", [PAGE.check_links, PAGE.check_width, PAGE.check_named_files])
def test_the_page_is_in_order(check):
    check()
