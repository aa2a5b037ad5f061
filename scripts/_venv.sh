# Sourced by the other scripts: makes .venv in the repository's root and installs the package with the given extras.
# Nothing is done again when pyproject.toml, requirements.txt and constraints.txt are as they were.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

setup_venv() { # $1: extras such as "[test]", or ""
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "Python 3.10 or newer is needed; set PYTHON to one" >&2; exit 1; }
  [ -x .venv/bin/python ] || { echo "Making .venv"; "$python" -m venv .venv; }
  local stamp wanted
  stamp=.venv/installed$1
  wanted=$(cat pyproject.toml requirements.txt constraints.txt | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing basicsr-kd$1 into .venv (PyTorch is large: minutes on a slow line)"
    # torch first: a CPU build that is at hand locally is then not replaced by a larger one
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$1"
    echo "$wanted" > "$stamp"
  fi
}
