# Sourced by the scripts beside it: the same surroundings for every tool, whoever calls it. Neither
# the caller's profiles nor telemetry, and nothing written outside the checkout.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=$PWD/.local
# Where this local AWS keeps its files. The tests run one of their own beside that of `make local`.
local=${COFFER_LOCAL:-$tools}
endpoint=http://127.0.0.1:${COFFER_LOCAL_PORT:-4566}
mkdir -p "$local/tmp"

unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN
export AWS_ENDPOINT_URL=$endpoint AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
export AWS_CONFIG_FILE=$local/none AWS_SHARED_CREDENTIALS_FILE=$local/none
export SAM_CLI_TELEMETRY=0 __SAM_CLI_APP_DIR=$tools/sam-home TMPDIR=$local/tmp
export NODE_DISABLE_COMPILE_CACHE=1 NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

# Runs a command with its output in a file, shown if it fails; says that it goes on meanwhile.
patiently() {
  local log=$1 began=$SECONDS
  shift
  "$@" >"$log" 2>&1 &
  local job=$!
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - began >= 15)); then
      began=$SECONDS
      printf '  ... %s\n' "$(tail -n 1 "$log" | tr -d '\r' | cut -c -90)" >&2
    fi
  done
  wait "$job" || { cat "$log" >&2; return 1; }
}

# Whether the process that was started here still runs, and is no other that got its number.
running() {
  [ -f "$local/aws.pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$local/aws.pid")/cmdline" |
    grep -q -- ' -m aws '
}
