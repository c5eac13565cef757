#!/usr/bin/env bash
# Ask for a TPU slice and wait until it is there.
#   NAME=run1 ZONE=us-east5-a PROJECT=my-project ./launch/tpu_create.sh v5p:4x4x4 [--spot | --reserved]
set -euo pipefail
if [ $# -lt 1 ] || [ "$1" = --help ]; then sed -n '2,3s/^# //p' "$0"; exit 2; fi
: "${NAME:?name of the slice}" "${ZONE:?zone, such as us-east5-a}" "${PROJECT:?project of Google Cloud}"
chip=${1%%:*} topology=${1#*:}
shift

# Images: https://cloud.google.com/tpu/docs/runtimes
case $chip in
  v4) type=V4 image=tpu-ubuntu2204-base ;;
  v5e) type=V5LITE_POD image=v2-alpha-tpuv5-lite ;;
  v5p) type=V5P image=v2-alpha-tpuv5 ;;
  v6e) type=V6E image=v2-alpha-tpuv6e ;;
  *) echo "unknown chip $chip: v4, v5e, v5p, v6e (tpu7x is had through GKE: launch/xpk.sh)" >&2; exit 2 ;;
esac

gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --project "$PROJECT" --zone "$ZONE" \
  --type "$type" --topology "$topology" --runtime-version "$image" "$@"
while true; do
  state=$(gcloud compute tpus queued-resources describe "$NAME" --project "$PROJECT" --zone "$ZONE" --format='value(state.state)')
  echo "$(date +%T) $NAME: $state"
  case $state in
    ACTIVE) break ;;
    FAILED | SUSPENDED) echo "delete it before another try: gcloud compute tpus queued-resources delete $NAME --force" >&2; exit 1 ;;
  esac
  sleep "${POLL_SECONDS:-60}"
done
