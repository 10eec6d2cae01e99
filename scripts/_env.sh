# Sourced by the scripts beside it: one virtual environment in .venv, made and filled on first use.
# Usage: . scripts/_env.sh; need_environment EXTRAS…   (dev, local, fallback, aec, browser, mcp, otel)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

need_environment() {
  local wanted="$*" stamp="$VENV/.trio-voice-installed"
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "trio-voice needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2
    exit 1
  fi
  if [ ! -x "$VENV/bin/python" ]; then
    echo "Making $VENV …"
    if ! "$PYTHON" -m venv "$VENV"; then
      echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2
      exit 1
    fi
  fi
  # Installed once per content of pyproject.toml and set of extras.
  local key
  key="$(cksum < pyproject.toml) $(pwd)"
  for part in $wanted; do
    if ! grep -qxF "$key $part" "$stamp" 2>/dev/null; then
      echo "Installing trio-voice ($part) …"
      case "$part" in
        base) "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable . ;;
        dev)
          "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
          "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable . --group dev
          ;;
        *) "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$part]" ;;
      esac
      echo "$key $part" >> "$stamp"
    fi
  done
}
