"""Option files: reading, translating and checking them, and the command line of train.py and test.py."""

from .command_line import copy_opt_file, parse_options
from .errors import OptionError
from .files import load_options
from .reading import read_options
from .record import dict2str
from .yaml_text import ordered_yaml, yaml_load

__all__ = [
    "OptionError",
    "copy_opt_file",
    "dict2str",
    "load_options",
    "ordered_yaml",
    "parse_options",
    "read_options",
    "yaml_load",
]
