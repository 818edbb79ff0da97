#!/usr/bin/env bash
# The main job, for real: a server and a worker on two simulated phones, the example project's specs submitted
# with the command that CI uses, and what came of them. Leaves nothing behind but the npm packages in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."

qgjob=$PWD/bin/qgjob
data=$PWD/.cache/demo
scratch=$(mktemp -d)
dev=
mkdir -p "$data"
rm -rf "$data"/qgjob.db* "$data"/blobs # each demo begins with an empty queue; the worker's npm packages are kept

cleanup() {
  if [ -n "$dev" ] && kill -TERM "$dev" 2>/dev/null; then
    wait "$dev" || true
  fi
  rm -rf "$scratch" "$data"/qgjob.db* "$data"/blobs
}
trap cleanup EXIT
trap 'exit 130' INT TERM
export XDG_CACHE_HOME=$PWD/.cache # the worker installs Appium here, once
unset CI QGJOB_URL QGJOB_TOKEN QGJOB_ORG QGJOB_DATABASE_URL

# Nothing here needs more than the bash 3.2 that macOS has.
colours=
[ ! -t 1 ] || [ -n "${NO_COLOR:-}" ] || colours=yes
colour() {
  case $1 in
    worker) echo 90 ;;
    onboarding) echo 94 ;;
    sign-in) echo 95 ;;
    cart) echo 33 ;;
    checkout) echo 31 ;;
    *) echo 32 ;;
  esac
}
say() {
  if [ -n "$colours" ]; then
    printf '\033[%sm%-12s|\033[0m %s\n' "$(colour "$1")" "$1" "$2"
  else
    printf '%-12s| %s\n' "$1" "$2"
  fi
}
prefix() { while IFS= read -r line; do say "$1" "$line"; done; }

"$qgjob" phone apk examples/onboarding/app/corner-shop.json -o "$scratch/corner-shop.apk"

: >"$scratch/dev.out"
"$qgjob" dev --phones=2 --install-time=3s --listen=127.0.0.1:0 --data-dir="$data" --log-level=warn > >(tee "$scratch/dev.out" | prefix worker) 2>&1 &
dev=$!
export QGJOB_URL=
until [ -n "$QGJOB_URL" ]; do
  kill -0 "$dev" 2>/dev/null || { echo "qgjob dev ended" >&2; exit 1; }
  sleep 0.1
  QGJOB_URL=$(sed -n 's/^qgjob server listens on \([^ ]*\) .*/\1/p' "$scratch/dev.out")
done

cd examples/onboarding
waiting=() codes=()
for spec in onboarding sign-in cart checkout orders; do
  {
    "$qgjob" submit --org-id=corner-shop --app-version-id=1.2.0 --test="tests/$spec.spec.ts" --app="$scratch/corner-shop.apk" --wait 2>&1 | prefix "$spec"
    exit "${PIPESTATUS[0]}"
  } &
  waiting+=("$spec:$!")
done
for w in "${waiting[@]}"; do
  code=0
  wait "${w#*:}" || code=$?
  codes+=("${w%:*}:$code")
done

echo
"$qgjob" list --json >"$scratch/jobs.json"
"$qgjob" devices --json >"$scratch/devices.json"
node - "$scratch/jobs.json" "$scratch/devices.json" <<'SUMMARY'
const fs = require("fs");
const read = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
const { jobs } = read(process.argv[2]);
const { devices } = read(process.argv[3]);
console.log("What became of it");
for (const j of jobs.sort((a, b) => a.test_path.localeCompare(b.test_path))) {
  const seconds = ((Date.parse(j.ended_at) - Date.parse(j.submitted_at)) / 1000).toFixed(1);
  console.log(`  ${j.test_path.padEnd(26)} ${(j.flaky ? j.state + " (flaky)" : j.state).padEnd(16)} ${j.attempts} attempt${j.attempts > 1 ? "s" : " "} ${seconds.padStart(6)} s`);
}
const sum = (field) => devices.reduce((n, d) => n + d[field], 0);
const count = (state) => jobs.filter((j) => j.state === state).length;
console.log(`  ${jobs.length} jobs: ${count("passed")} passed, ${count("failed")} failed, ${count("errored")} errored`);
console.log(`  ${devices.length} phones: ${sum("installs")} installs done, ${sum("installs_saved")} saved`);
SUMMARY

# The demo worked when each verdict is the one that its spec was written for.
for c in "${codes[@]}"; do
  spec=${c%:*} code=${c#*:} want=0
  [ "$spec" != checkout ] || want=1
  [ "$code" -eq "$want" ] || { echo "tests/$spec.spec.ts exited $code, want $want" >&2; exit 1; }
done
