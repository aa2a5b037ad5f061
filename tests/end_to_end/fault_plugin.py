"""A plug-in that does something to its process at a place that the environment names.

``FAULT=<place>:<n>:<deed>``: the n-th time that the place is reached, do the deed. Places: ``step`` (before an
iteration), ``image`` (before the forward pass of a validated image), ``write`` (half of a checkpoint file is written),
``rename`` (all of it is, under its temporary name), ``delete`` (an old file is about to be deleted). Deeds: a signal's
name, or ``raise``.

``SLOW=<seconds>`` makes each iteration and each validated image last longer.
"""

import io
import os
import signal
import time
from pathlib import Path

import torch

from basicsr.models.sr_model import SRModel

place, number, deed = os.environ.get("FAULT", "nowhere:0:none").split(":")
slowness = float(os.environ.get("SLOW", 0))
count = 0


def reach(name):
    global count
    if name == place:
        count += 1
        if count == int(number):
            if deed == "raise":
                raise ValueError("the plug-in raised this")
            os.kill(os.getpid(), signal.Signals[deed])
            time.sleep(0.2 if deed == "SIGKILL" else 0)


def before(cls, method, name):
    original = getattr(cls, method)

    def wrapper(self, *args, **kwargs):
        if name == "delete" and not str(self).endswith((".pth", ".state")):
            return original(self, *args, **kwargs)
        reach(name)
        if name != "delete":
            time.sleep(slowness)
        return original(self, *args, **kwargs)

    setattr(cls, method, wrapper)


def save(obj, file, original=torch.save, **kwargs):
    if isinstance(file, io.BytesIO):  # not a file: a tensor on its way to another process
        original(obj, file, **kwargs)
        return
    content = io.BytesIO()
    original(obj, content)
    half = len(content.getvalue()) // 2
    file.write(content.getvalue()[:half])
    file.flush()
    reach("write")
    file.write(content.getvalue()[half:])


def replace(source, target, original=os.replace):
    if str(target).endswith((".pth", ".state")):
        reach("rename")
    original(source, target)


if place != "nowhere" or slowness:
    before(SRModel, "optimize_parameters", "step")
    before(SRModel, "test", "image")
    before(Path, "unlink", "delete")
    torch.save = save
    os.replace = replace
