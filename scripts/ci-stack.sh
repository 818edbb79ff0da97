#!/usr/bin/env bash
# ci-stack.sh start DIR PHONES: starts a server, so many simulated phones and a worker for them in the
# background, and says where the server is by QGJOB_URL in GITHUB_ENV. Logs, process ids and data are in DIR.
# ci-stack.sh stop DIR: ends them, the worker first.
set -euo pipefail
dir=$2

# launch NAME PATTERN COMMAND...: starts a command and waits until its output has a line that fits the pattern.
launch() {
  local name=$1 pattern=$2 _
  shift 2
  nohup "$@" >"$dir/$name.log" 2>"$dir/$name.err" </dev/null &
  echo $! >"$dir/$name.pid"
  for _ in $(seq 300); do
    grep -qE "$pattern" "$dir/$name.log" && return
    kill -0 "$(cat "$dir/$name.pid")" 2>/dev/null || break
    sleep 0.2
  done
  echo "ci-stack.sh: $name did not start" >&2
  cat "$dir/$name.log" "$dir/$name.err" >&2
  exit 1
}

case $1 in
  start)
    mkdir -p "$dir"
    launch server '^qgjob server listens on' qgjob server --listen=127.0.0.1:0 --data-dir="$dir/server"
    url=$(sed -nE 's/^qgjob server listens on (\S+) .*/\1/p' "$dir/server.log")
    devices=()
    for n in $(seq "$3"); do
      launch "phone$n" '^Connect with: adb connect' qgjob phone --serial="SIM000$n" --model="SimPhone $n"
      devices+=("--device=$(sed -nE 's/^Connect with: adb connect //p' "$dir/phone$n.log")")
    done
    launch worker '^Worker has started!' qgjob worker --forever --url="$url" "${devices[@]}"
    echo "QGJOB_URL=$url" >>"${GITHUB_ENV:-/dev/stdout}"
    ;;
  stop)
    for pid in "$dir"/worker.pid "$dir"/phone*.pid "$dir"/server.pid; do
      [ -e "$pid" ] || continue
      kill "$(cat "$pid")" 2>/dev/null || continue # it has ended
      for _ in $(seq 150); do
        kill -0 "$(cat "$pid")" 2>/dev/null || break
        sleep 0.2
      done
    done
    ;;
esac
