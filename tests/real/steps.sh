# shellcheck shell=bash
# Steps with a time budget, a duration and an outcome, and the table of them all. Sourced by tests/run and .ci/run; whichever began
# prints the table and, as its last line, `N passed, N failed`.

steps=${NEXUSHUB_STEPS:-}
began=no
if [ -z "$steps" ]; then
  began=yes
  steps=$(mktemp)
  export NEXUSHUB_STEPS=$steps
fi
patience=${NEXUSHUB_PATIENCE:-1}

note() { printf '%s %s %s\n' "$1" "$2" "$3" >>"$steps"; } # outcome, tenths of a second, name

tenths() {
  local now=${EPOCHREALTIME/[.,]/}
  echo $((now / 100000))
}

# Runs a command within its budget; what follows runs whatever its outcome.
step() { # name, budget in seconds, command...
  local name=$1 budget=$(($2 * patience)) start code=0
  shift 2
  start=$(tenths)
  printf '\n==== %s\n' "$name"
  timeout -k 60s "${budget}s" "$@" </dev/null || code=$?
  local took=$(($(tenths) - start))
  case $code in
    0) note passed "$took" "$name" ;;
    124 | 137) note failed "$took" "$name (over its budget of $budget s)" ;;
    *) note failed "$took" "$name (exit code $code)" ;;
  esac
  printf '==== %s: %s, %d.%d s\n' "$name" "$([ $code = 0 ] && echo passed || echo FAILED)" $((took / 10)) $((took % 10))
  return $code
}

# What this machine can't do. In CI that is a failure.
skip() { # name, why
  printf '\n==== %s: skipped, %s\n' "$1" "$2"
  if [ "${CI:-}" = true ]; then note failed 0 "$1 (skipped in CI: $2)"; else note skipped 0 "$1 ($2)"; fi
}

# The end of whoever began: the table, the count, and the exit code.
finish() {
  local failed passed
  failed=$(grep -c '^failed' "$steps" || true)
  passed=$(grep -c '^passed' "$steps" || true)
  if [ "$began" = yes ]; then
    printf '\nslowest steps:\n'
    sort -k2,2nr "$steps" | while read -r outcome took name; do
      printf '%7d.%d s  %-7s  %s\n' $((took / 10)) $((took % 10)) "$outcome" "$name"
    done
    rm -f "$steps"
    printf '%d passed, %d failed\n' "$passed" "$failed"
  fi
  [ "$failed" = 0 ] || exit 1
}
