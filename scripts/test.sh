#!/usr/bin/env bash
# Sets up .venv if needed, then lints and tests. Arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/_venv.sh"
setup_venv "[test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "$@"
