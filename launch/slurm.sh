#!/usr/bin/env bash
#SBATCH --job-name=fewstep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
# One process for each node, with all its GPUs. Nodes, GPUs and time can be given to sbatch too.
#   sbatch --nodes=4 launch/slurm.sh --config configs/imagenet256_sit.py --workdir /shared/runs/sit
# 120 s before the time is over, or when the job is preempted, the run saves, ends, and is put into the queue again.
set -uo pipefail
if [ $# -lt 1 ] || [ "$1" = --help ]; then sed -n '12,14s/^# //p' "$0"; exit 2; fi
cd "${SLURM_SUBMIT_DIR:-$PWD}" || exit 1
stopped=
# Before srun: a signal that came between the two would end this script, and nothing would queue the job again.
trap 'stopped=1; scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM
srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" main.py --interrupted_code=75 "$@" &
job=$!
wait "$job"
code=$?
if [ -n "$stopped" ]; then # the first wait ended with the signal
  wait "$job"
fi
# A job that is preempted may have its signal sent to main.py alone, which then ends with this code.
if [ -n "$stopped" ] || [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
