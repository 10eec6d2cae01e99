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
  local missing="" extras="" groups=""
  for part in $wanted; do
    grep -qxF "$key $part" "$stamp" 2>/dev/null || missing="$missing $part"
  done
  [ -n "$missing" ] || return 0
  echo "Installing trio-voice:$missing …"
  for part in $missing; do
    case "$part" in
      base) ;;
      dev) groups="--group dev" ;;
      *) extras="$extras${extras:+,}$part" ;;
    esac
  done
  local pip="$VENV/bin/python -m pip install --quiet --disable-pip-version-check"
  if [ -n "$groups" ]; then
    $pip --upgrade 'pip>=25.1'
  fi
  $pip --editable ".${extras:+[$extras]}" $groups
  for part in $missing; do
    echo "$key $part" >> "$stamp"
  done
}
