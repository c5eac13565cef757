#!/usr/bin/env bash
# Start the same command on every worker of a slice, in the background there; follow what worker 0 prints; or stop it.
#   NAME=run1 ZONE=us-east5-a PROJECT=my-project ./launch/tpu_run.sh start --config configs/imagenet256_sit.py --workdir /mnt/runs/sit
#   NAME=run1 ZONE=us-east5-a PROJECT=my-project ./launch/tpu_run.sh follow
#   NAME=run1 ZONE=us-east5-a PROJECT=my-project ./launch/tpu_run.sh stop
set -euo pipefail
usage() { sed -n '2,5s/^# //p' "$0"; exit 2; }
[ $# -ge 1 ] && [ "$1" != --help ] || usage
: "${NAME:?name of the slice}" "${ZONE:?zone, such as us-east5-a}" "${PROJECT:?project of Google Cloud}"
on() { gcloud compute tpus tpu-vm ssh "$NAME" --project "$PROJECT" --zone "$ZONE" --worker="$1" --command "$2"; }
action=$1
shift
case $action in
  start)
    [ $# -ge 1 ] || usage
    # A worker whose process ends takes the others with it; all of them go on together from the newest checkpoint.
    printf -v arguments ' %q' "$@"
    loop="until .venv/bin/python main.py --distributed --interrupted_code=75$arguments; do echo \"exit \$?, again\"; sleep \${AGAIN_SECONDS:-30}; done"
    printf -v quoted '%q' "$loop"
    on all "cd fewstep && nohup setsid bash -c $quoted > run.log 2>&1 < /dev/null & sleep 1"
    ;;
  follow) on 0 "tail -n 50 -F fewstep/run.log" ;;
  # First the loop that would start it again, then the run itself, which saves and ends.
  stop) on all "pkill -f '[u]ntil .venv/bin/python main.py'; pkill -TERM -f '[m]ain.py --distributed' || true" ;;
  *) usage ;;
esac
