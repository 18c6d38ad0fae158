#!/usr/bin/env bash
# Everything CI checks, on a bare Debian 12 or Ubuntu with Node: installs what is missing, builds, lints, typechecks, tests.
# The last line says `N passed, N failed[, N skipped]`; the exit code is right.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
export PATH="$PATH:/usr/sbin:/sbin"

# Nobody's own account or configuration gets near the tests.
unset "${!AZURE_@}" "${!LUSTRITE_@}"

# Not every release has clang-format 19; without it the C++ format is not checked, and lint says so.
scripts/prepare.sh setfacl:acl sqlite3:sqlite3 rsync:rsync tar:tar rclone:rclone cmp:diffutils ps:procps \
  mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs 'clang-format-19:clang-format-19?'

export LUSTRITE_NATIVE=require
npm run --silent lint >&2
npm run --silent typecheck >&2
exec npm run --silent test:ci
