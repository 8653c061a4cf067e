#!/bin/bash
# The same as slurm.sh, with a vLLM server beside each worker, on the node's GPU.
#SBATCH --job-name=batchgen-vllm
#SBATCH --array=0-3
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180

: "${BATCHGEN_DATABASE:?say where the work table is: postgresql://user@host/name}"
model=${MODEL:-Qwen/Qwen3-8B}
port=$((8000 + SLURM_JOB_ID % 20000))    # of its own, where several are on one node
# This task alone: for one of them SLURM_JOB_ID means the whole array.
task=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
time_is_over='' stopped='' step=''
trap 'time_is_over=yes; [ -z "$step" ] || scancel --signal=TERM "$task.0"' USR1
trap stopped=yes TERM

# The server is no step: it is to answer until the worker has ended.
vllm serve "$model" --port "$port" >"vllm-$SLURM_JOB_ID.log" 2>&1 & server=$!
trap 'kill "$server" 2>/dev/null' EXIT
until curl -fs -o /dev/null "http://localhost:$port/health"; do
  if [ -n "$time_is_over$stopped" ]; then  # in one look: a signal may come between two
    [ -z "$time_is_over" ] || scontrol requeue "$task"
    exit 143
  fi
  kill -0 "$server" 2>/dev/null || { echo "vllm has ended: see vllm-$SLURM_JOB_ID.log" >&2; exit 1; }
  sleep 2 & wait $!                      # a signal ends the wait
done

# By the node's name and not localhost, so that each server is one of its own to the workers.
node=$(hostname)
export BATCHGEN_MODEL_BASE_URL="http://$node:$port/v1" BATCHGEN_MODEL_MODEL="$model"
srun --ntasks=1 --overlap --kill-on-bad-exit=0 batchgen work -c 256 --grace 150 & step=$!
[ -z "$time_is_over" ] || scancel --signal=TERM "$task.0"

while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
wait "$step" 2>/dev/null; last=$?
[ "$last" -eq 127 ] || code=$last

if [ -n "$time_is_over" ] && [ "$code" -eq 143 ]; then
  scontrol requeue "$task"
fi
[ "$code" -eq 3 ] && exit 0
exit "$code"
