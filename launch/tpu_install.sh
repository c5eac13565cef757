#!/usr/bin/env bash
# Copy this commit to every worker of a slice and install it there with JAX for TPUs.
#   NAME=run1 ZONE=us-east5-a PROJECT=my-project ./launch/tpu_install.sh
set -euo pipefail
if [ $# -gt 0 ]; then sed -n '2,3s/^# //p' "$0"; exit 2; fi
: "${NAME:?name of the slice}" "${ZONE:?zone, such as us-east5-a}" "${PROJECT:?project of Google Cloud}"
cd "$(dirname "$0")/.."
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
place=(--project "$PROJECT" --zone "$ZONE" --worker=all)
gcloud compute tpus tpu-vm scp "$archive" "$NAME:fewstep.tar.gz" "${place[@]}"
gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --command '
  set -e
  mkdir -p fewstep && tar xzf fewstep.tar.gz -C fewstep && cd fewstep
  python3 -c "import sys; sys.exit(sys.version_info < (3, 11))" ||
    { sudo add-apt-repository -y ppa:deadsnakes/ppa && sudo apt-get install -y python3.11 python3.11-venv; }
  python3=$(command -v python3.11 || command -v python3)
  [ -d .venv ] || "$python3" -m venv .venv
  .venv/bin/pip install --quiet --constraint constraints.txt ".[train,data,eval,tpu]"
  .venv/bin/python -c "import jax; print(jax.__version__, \"installed\")"
'
