# shellcheck shell=bash
# What every script here starts with: where the repository is, how to speak, and which Docker client to call.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export ROOT

# The package's own client, unless NAVVY_DOCKER names another: some machines carry a stand-in called `docker` earlier on
# PATH. Looked for at each call, since scripts/setup may only just have installed it.
docker() {
  local client=${NAVVY_DOCKER:-/usr/bin/docker}
  [[ -x $client ]] || client=docker
  command "$client" "$@"
}

# All messages go to stderr: stdout belongs to what a script was asked for.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  shift
  local hint
  for hint in "$@"; do printf '  hint: %s\n' "$hint" >&2; done
  exit 1
}

# wait_for SECONDS COMMAND...: asks until COMMAND succeeds; fails when the time is over.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# timed WHAT COMMAND...: says what is done and, at its end, how long it took.
timed() {
  local what=$1 from=$EPOCHREALTIME
  shift
  say "$what ..."
  "$@"
  say "$what: $(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }')"
}

# need_space GIB DIRECTORY WHAT: stops where a file system has less, before half of the work is done.
need_space() {
  local free
  free=$(df --output=avail -BM "$2" | tail -n 1 | tr -dc 0-9)
  ((free >= $1 * 1024)) || die "$3 takes $1 GiB of disk, and $2 has $((free / 1024)) GiB free" \
    "make room: \`rm -rf target/debug/incremental\` gives back most of what earlier builds took"
}

# as_root COMMAND...: runs it as root, through sudo where we are not root.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "this needs root: $*" "run it as root, or install sudo"
  fi
}
