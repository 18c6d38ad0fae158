#!/usr/bin/env bash
# Makes a clone ready to run on a bare Debian 12 or Ubuntu with Node: Debian packages, node_modules, native part, dist.
#   scripts/prepare.sh [PROGRAM:PACKAGE]...   further programs the caller needs; `PROGRAM:PACKAGE?` may be missing
# Prints to stderr only.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null >&2
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf '%s\n' "prepare: $*"; }

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  say 'Node.js (^20.19 or >=22.12) with npm is needed: https://nodejs.org/en/download'
  exit 1
fi
if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number);
  process.exit((a === 20 && b >= 19) || (a === 22 && b >= 12) || a > 22 ? 0 : 1)'; then
  say "Node.js $(node -v) does not do: ^20.19 or >=22.12 is needed"
  exit 1
fi

as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
updated=
apt_install() {
  if ! command -v apt-get >/dev/null; then
    say "missing packages: $*; this system has no apt-get, install them its own way"
    return 1
  fi
  if ! "${as_root[@]}" true 2>/dev/null; then
    say "missing packages: $*; run as root, or first: sudo apt-get install $*"
    return 1
  fi
  local options=(-qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=600)
  if [ -z "$updated" ]; then
    updated=yes
    "${as_root[@]}" apt-get "${options[@]}" update || say 'apt-get update failed, going on with the lists there are'
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get "${options[@]}" install -y --no-install-recommends "$@"
}

required=() optional=()
for pair in g++:g++ make:make python3:python3 git:git fusermount3:fuse3 mount:mount setfattr:attr "$@"; do
  if command -v "${pair%%:*}" >/dev/null; then continue; fi
  package=${pair#*:}
  case $package in
    *\?) optional+=("${package%\?}") ;;
    *) required+=("$package") ;;
  esac
done
if [ "${#required[@]}" -gt 0 ]; then apt_install "${required[@]}"; fi
for package in "${optional[@]}"; do
  apt_install "$package" || say "going on without $package"
done

export LUSTRITE_NATIVE=require JOBS="${JOBS:-max}"
export npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
# npm writes its hidden lockfile when an installation is complete.
if [ "${CI:-}" = true ] || [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  # Without scripts: fuse-native would compile itself against a libfuse 2 that nobody has.
  npm ci --ignore-scripts --no-progress
fi
npm run --silent build:native
npm run --silent build
