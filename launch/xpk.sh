#!/usr/bin/env bash
# Run a command on a slice of a GKE cluster with xpk; the cluster restarts it after preemption.
#   CLUSTER=c1 IMAGE=gcr.io/my-project/fewstep TPU=v5p-128 NAME=sit ./launch/xpk.sh --config configs/imagenet256_sit.py --workdir /mnt/runs/sit
# The image has this checkout in /fewstep, installed with `pip install '.[train,data,eval,tpu]'`.
set -euo pipefail
if [ $# -lt 1 ] || [ "$1" = --help ]; then sed -n '2,4s/^# //p' "$0"; exit 2; fi
: "${CLUSTER:?name of the cluster}" "${IMAGE:?image of a container}" "${TPU:?type of the slice, such as v5p-128}" "${NAME:?name of the job}"
printf -v arguments ' %q' "$@"
xpk workload create --cluster "$CLUSTER" --workload "$NAME" --docker-image "$IMAGE" --tpu-type "$TPU" \
  --num-slices 1 --max-restarts "${RESTARTS:-100}" \
  --command "cd /fewstep && python main.py --distributed --interrupted_code=75$arguments"
