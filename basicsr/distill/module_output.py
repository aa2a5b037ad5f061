"""The output of a module, which may be a tensor or several in a tuple, list or dict."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def select_output(output: Any, path: str, key: str, label: str) -> Tensor:
    """The tensor that a tap names.

    Args:
        output: What the module returned.
        path: The module, for the message.
        key: Index or key of one of several outputs; '' for the only one.
        label: The network, for the message.

    Raises:
        ValueError: If that is not a tensor; the message says what can be tapped.
    """
    if not key and isinstance(output, Tensor):
        return output
    parts = _parts(output)
    if isinstance(parts.get(key), Tensor):
        return parts[key]
    tensors = [f"'{path}#{key}'" for key, part in parts.items() if isinstance(part, Tensor)]
    if isinstance(output, Tensor):
        tensors = [f"'{path}'"]
    advice = f"tap {' or '.join(tensors)}" if tensors else "tap a module inside or after it"
    found = "one tensor" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    name = f", of which '#{key}' is not a tensor" if key else ", not a tensor"
    raise ValueError(f"{label}: the output of '{path}' is {found}{name}; {advice}")


def replace_output(output: Any, key: str, value: Tensor) -> Any:
    """A module's output with one of its tensors replaced; the module's own containers are not changed."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, dict):
        changed = output.copy()
        changed.update({name: value for name in output if str(name) == key})
        return changed
    items = [*output]
    items[int(key)] = value
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*items)
    return type(output)(items)


def _parts(output: Any) -> dict[str, Any]:
    """The items of a tuple, list or dict by the key that addresses each."""
    if isinstance(output, dict):
        return {str(key): value for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        return {str(index): value for index, value in enumerate(output)}
    return {}
