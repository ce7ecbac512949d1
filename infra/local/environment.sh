# shellcheck shell=bash
# Sourced by the other scripts here. Gives every tool the same environment: without the caller's AWS
# profiles, without telemetry, and writing only inside the checkout.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
tools=$PWD/.local
# The folder of this local AWS. The journeys have other ones than `make local`.
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

# Runs a command with its output in a file. Prints the last line every 15 seconds, and all of it
# if the command fails.
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

# Reports whether the local AWS is running. Checks the command line, because process ids are reused.
running() {
  [ -f "$local/aws.pid" ] && tr '\0' ' ' 2>/dev/null <"/proc/$(cat "$local/aws.pid")/cmdline" |
    grep -q -- ' -m aws '
}
