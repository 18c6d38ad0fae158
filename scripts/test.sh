#!/usr/bin/env bash
# Everything CI checks, on a bare Debian 12 or Ubuntu with Node: installs what is missing, builds, lints, typechecks, tests.
# The last line says `N passed, N failed[, N skipped]`; the exit code is right.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

say() { printf 'test.sh: %s\n' "$*" >&2; }

command -v node >/dev/null && command -v npm >/dev/null || {
  say 'Node.js (20.19 or newer, or 22.12 or newer) with npm is needed, see https://nodejs.org/en/download'
  exit 1
}
node -e 'const [a, b] = process.versions.node.split(".").map(Number);
  process.exit((a === 20 && b >= 19) || (a === 22 && b >= 12) || a > 22 ? 0 : 1)' || {
  say "Node.js $(node -v) is too old: ^20.19 || >=22.12 is needed"
  exit 1
}

# Program -> the Debian package it comes in.
programs='g++:g++ make:make python3:python3 git:git fusermount3:fuse3 setfattr:attr setfacl:acl sqlite3:sqlite3
  rsync:rsync mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mount:mount ps:procps cmp:diffutils tar:tar'
export PATH="$PATH:/usr/sbin:/sbin"

missing_packages() {
  local pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
  done
}

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
updated=
apt_install() {
  command -v apt-get >/dev/null || { say "missing: $*; install them with this system's package manager"; return 1; }
  "${as_root[@]}" true 2>/dev/null || { say "missing: $*; run as root, or: sudo apt-get install $*"; return 1; }
  local options=(-qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600)
  if [ -z "$updated" ]; then
    "${as_root[@]}" apt-get "${options[@]}" update >&2 || say 'apt-get update failed, going on with the lists there are'
    updated=yes
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get "${options[@]}" install -y --no-install-recommends "$@" >&2
}

# shellcheck disable=SC2086 # a list of words
mapfile -t missing < <(missing_packages $programs)
if [ "${#missing[@]}" -gt 0 ]; then apt_install "${missing[@]}"; fi
# Not every release has it; then the C++ format is not checked, and lint says so.
if ! command -v clang-format-19 >/dev/null; then
  apt_install clang-format-19 || say 'no clang-format-19: the format of native/ will not be checked'
fi

# Nobody's own account or configuration gets near the tests.
unset "${!AZURE_@}" "${!LUSTRITE_@}"
export LUSTRITE_NATIVE=require JOBS="${JOBS:-max}" npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false

# npm writes the hidden lockfile when it has finished.
if [ "${CI:-}" = true ] || [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  # Without scripts: fuse-native would compile itself against a libfuse 2 that nobody has.
  npm ci --ignore-scripts --no-progress >&2
fi
npm run --silent build:native >&2
npm run --silent build >&2
npm run --silent lint >&2
npm run --silent typecheck >&2
exec npm run --silent test:ci
