#!/usr/bin/env bash
# action.sh binary: finds or builds qgjob for the GitHub action, and hands its path to the next steps.
# action.sh run: runs the tests as the action's inputs say, which are in the environment.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

case $1 in
  binary)
    binary="$root/bin/qgjob"
    if [ ! -x "$binary" ]; then
      command -v go >/dev/null || {
        echo "::error::qgjob: there is no $binary and no Go to build it: run actions/setup-go first"
        exit 20
      }
      (cd "$root" && CGO_ENABLED=0 go build -trimpath -o bin/qgjob ./cmd/qgjob)
    fi
    echo "path=$binary" >>"$GITHUB_OUTPUT"
    ;;
  run)
    [ -z "${QGJOB_TOKEN:-}" ] || echo "::add-mask::$QGJOB_TOKEN"
    reports="$GITHUB_WORKSPACE/$REPORTS"
    flags=(--github "--app-version-id=$APP_VERSION" "--priority=$PRIORITY" "--wait-timeout=$WAIT_TIMEOUT"
      "--junit=$reports/junit.xml" "--json-file=$reports/run.json" "--markdown=$reports/summary.md")
    set -f # a pattern is qgjob's to expand
    for test in $TESTS; do flags+=("--test=$test"); done
    for secret in ${SECRETS:-}; do flags+=("--secret=$secret"); done
    set +f
    while IFS= read -r variable; do
      [ -z "$variable" ] || flags+=("--env=$variable")
    done <<<"${VARIABLES:-}"
    [ -z "${DEADLINE:-}" ] || flags+=("--deadline=$DEADLINE")
    [ -z "${MAX_COST:-}" ] || flags+=("--max-cost=$MAX_COST")
    [ -z "$APP" ] || flags+=("--app=$APP")
    [ -z "$TARGET" ] || flags+=("--target=$TARGET")
    [ -z "${REQUIRES:-}" ] || flags+=("--requires=$REQUIRES")
    [ -z "$MATRIX" ] || flags+=("--matrix=$MATRIX")
    [ -z "$SHARD" ] || flags+=("--shard=$SHARD")
    [ -z "${QUEUE_TIMEOUT:-}" ] || flags+=("--queue-timeout=$QUEUE_TIMEOUT")
    [ -z "$MAX_FAILURES" ] || flags+=("--max-failures=$MAX_FAILURES")
    [ "$CANCEL_PREVIOUS" != true ] || flags+=(--cancel-previous)
    [ "$REPORT" != true ] || flags+=("--report=$reports/html")
    [ "$COMMENT" != true ] || flags+=(--comment)
    if [ -n "${ACT:-}" ]; then # act reads from a terminal, and loses what it has not read when the step ends
      status=0
      "$QGJOB" run "${flags[@]}" || status=$?
      sleep 1
      exit "$status"
    fi
    exec "$QGJOB" run "${flags[@]}" # so that a cancel's signal reaches it
    ;;
esac
