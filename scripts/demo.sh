#!/usr/bin/env bash
# Lustrite from nothing: installs, builds, starts Azurite, fills a container, mounts it, reads through stubs, changes
# files, exports, releases, restores, mounts again. Prints each command with its output and checks what came of it.
set -euo pipefail
exec </dev/null
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"

fail() {
  printf 'demo: %s\n' "$*" >&2
  exit 1
}

[ -c /dev/fuse ] || fail 'there is no /dev/fuse here (in a container: --device /dev/fuse --cap-add SYS_ADMIN)'
if [ "${1:-}" != prepared ]; then scripts/prepare.sh; fi
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || fail 'mounting needs root: run it as root, or: sudo scripts/demo.sh'
  exec sudo -n env "PATH=$PATH" "$here/scripts/demo.sh" prepared
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/lustrite-demo.XXXXXX")
mnt=$work/lustre
azurite=
cleanup() {
  local code=$?
  trap - EXIT INT TERM
  set +e
  cd "$here" || true
  if grep -qF " $mnt " /proc/mounts; then
    "$work/bin/lustrite" umount --lazy "$mnt" >/dev/null 2>&1
    grep -qF " $mnt " /proc/mounts && umount --lazy "$mnt"
  fi
  if [ -n "$azurite" ]; then
    kill "$azurite" 2>/dev/null
    wait "$azurite" 2>/dev/null
  fi
  if [ "$code" != 0 ] && [ -f "$work/store/daemon.log" ]; then
    printf '\ndemo: the end of the daemon'\''s log:\n' >&2
    tail -n 40 "$work/store/daemon.log" >&2
  fi
  rm -rf --one-file-system "$work"
  exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$work/bin" "$mnt"
ln -s "$here/dist/cli.js" "$work/bin/lustrite"
ln -s "$here/build/Release/lfs" "$work/bin/lfs"
ln -s "$here/scripts/hsm_state" "$here/scripts/hsm_restore" "$work/bin/"
export PATH="$work/bin:$PATH"
unset "${!AZURE_@}" "${!LUSTRITE_@}"

if [ -t 1 ]; then title() { printf '\n\033[1m%s\033[0m\n' "$*"; }; else title() { printf '\n%s\n' "$*"; }; fi
# Prints a command as one would type it, and its output; the output is also kept in $out.
run() {
  printf '$ %s\n' "$*"
  if ! out=$(eval "$@" 2>&1); then
    printf '%s\n' "$out"
    fail "this failed: $*"
  fi
  if [ -n "$out" ]; then printf '%s\n' "$out"; fi
}
# What the last output has to be, or to contain.
is() { [ "$out" = "$1" ] || fail "expected: $1"; }
has() { case $out in *"$1"*) ;; *) fail "expected in this output: $1" ;; esac; }
state() {
  run "lfs hsm_state $1"
  has ": ($2)"
}
# One field of the JSON on stdin, e.g. .census.released
field() { node -e 'let t="";process.stdin.on("data",d=>t+=d).on("end",()=>{let v=JSON.parse(t);
  for (const k of process.argv[1].split(".").filter(Boolean)) v=v?.[k];console.log(String(v))})' "$1"; }

title '1. An Azurite with a container that Azure Managed Lustre could have written'
node node_modules/azurite/dist/src/blob/main.js --blobPort 0 --inMemoryPersistence --skipApiVersionCheck --silent \
  --disableTelemetry --disableProductStyleUrl >"$work/azurite.log" 2>&1 &
azurite=$!
url=
for _ in $(seq 600); do
  url=$(sed -n 's/.*successfully listens on \(http[^ ]*\).*/\1/p' "$work/azurite.log")
  [ -z "$url" ] || break
  kill -0 "$azurite" 2>/dev/null || fail "Azurite did not start: $(cat "$work/azurite.log")"
  sleep 0.1
done
[ -n "$url" ] || fail 'Azurite did not start within a minute'
# Azurite's published account and key.
key='Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
export AZURE_STORAGE_CONNECTION_STRING="DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=$key;BlobEndpoint=$url/devstoreaccount1;"
node scripts/demo-fill.js fill data logs
node scripts/demo-fill.js list data | sed -n 1,6p

title '2. Mount it'
run "lustrite mount $mnt --container data --logging-container logs --store $work/store --wait"
has 'Completed'
run "ls -lR --time-style=long-iso $mnt | sed -n 1,20p"
run "stat -c '%a %u:%g %s %y' $mnt/a/b.bin"
has '640 1000:100 5242897 2023-03-17'
run "readlink $mnt/tools/latest"
is hello
run "lustrite status $mnt"
has '46 released'
has '0 resident'
state "$mnt/a/b.bin" 0x0000000d

title '3. The first read brings the data'
run "head -c 14 $mnt/a/notes.txt"
is 'read me first'
run "sha256sum $mnt/a/b.bin | cut -c1-64"
is "$(node -e 'const c=require("crypto");const n=5*1024*1024+17;
  const b=Buffer.alloc(n,c.createHash("sha512").update(String(n)).digest());
  console.log(c.createHash("sha256").update(b).digest("hex"))')"
state "$mnt/a/b.bin" 0x00000009
run "$mnt/tools/hello"
is 'hello from a stub'

title '4. Change files'
run "echo more >> $mnt/a/b.bin"
state "$mnt/a/b.bin" 0x0000000b
run "mkdir $mnt/new && echo result > $mnt/new/result.txt && chmod 600 $mnt/new/result.txt"
state "$mnt/new/result.txt" 0x00000000
run "mv $mnt/many/00.dat $mnt/many/renamed.dat && rm $mnt/many/01.dat"

title '5. Export: exactly what is new or changed'
run "lustrite export create $mnt --wait --json"
[ "$(field .properties.status.totalFilesExported <<<"$out")" = 2 ] || fail 'expected 2 exported files'
run "node scripts/demo-fill.js list data | grep -E '^(a/b.bin|new|many/0[01])'"
has $'a/b.bin\t5242902'
has $'new\t0'
has 'hdi_isfolder=true'
has $'new/result.txt\t7'
has 'permissions=0600'
has 'many/00.dat'
has 'many/01.dat'
state "$mnt/a/b.bin" 0x00000009

title '6. Release and restore'
run "lfs hsm_release $mnt/a/b.bin $mnt/new/result.txt"
state "$mnt/a/b.bin" 0x0000000d
run "du -k $mnt/a/b.bin | cut -f1"
is 1
run "lfs hsm_restore $mnt/a/b.bin"
for _ in $(seq 600); do
  case $(lfs hsm_state "$mnt/a/b.bin") in *'(0x00000009)'*) break ;; esac
  sleep 0.1
done
run "hsm_state $mnt/a/b.bin"
has '(0x00000009) exists archived, archive_id:1'
run "tail -c 5 $mnt/a/b.bin"
is more
run "cat $mnt/new/result.txt"
is result

title '7. Unmount and mount again: everything is as it was'
run "echo later >> $mnt/new/result.txt"
run "lustrite umount $mnt"
has 'new/result.txt'
run "lustrite mount $mnt --store $work/store"
state "$mnt/a/b.bin" 0x00000009
state "$mnt/new/result.txt" 0x0000000b
state "$mnt/many/02.dat" 0x0000000d
run "cat $mnt/new/result.txt"
is $'result\nlater'
run "lustrite status $mnt --json"
for pair in frontEnd=native census.dirty=1; do
  [ "$(field "${pair%%=*}" <<<"$out")" = "${pair#*=}" ] || fail "expected $pair"
done
run "lustrite umount $mnt"
run 'lustrite status'
case $out in *"$mnt"*) fail "$mnt is still listed" ;; esac

title 'The demo went well.'
