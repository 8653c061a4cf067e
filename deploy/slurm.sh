#!/bin/bash
# sbatch slurm.sh: an array of workers, each of which works until nothing is left in the table, on
# whatever node it is given, for as long as it is given that.
#
# The password of the database is best in ~/.pgpass, the key in a file that only you can read.
# To stop: scancel --signal=TERM JOB (finishes the calls in flight), or batchgen stop.
#SBATCH --job-name=batchgen
#SBATCH --array=0-15
#SBATCH --cpus-per-task=2
#SBATCH --time=04:00:00
#SBATCH --requeue                       # preempted, or its node is lost: Slurm runs it again
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180             # to this shell, 180 s before the time is over

: "${BATCHGEN_DATABASE:?say where the work table is: postgresql://user@host/name}"
# This task alone: for one of them SLURM_JOB_ID means the whole array.
task=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
time_is_over=

# As a step of its own the worker is sent a SIGTERM when Slurm preempts the job. This shell passes none
# on, as a second one says that the calls in flight are to be abandoned; and one to srun ends the
# step at once, so scancel takes the first.
trap 'time_is_over=yes; scancel --signal=TERM "$task.0"' USR1
trap : TERM
srun --ntasks=1 --kill-on-bad-exit=0 batchgen work -c 100 --grace 150 & step=$!

while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
wait "$step" 2>/dev/null; last=$?
[ "$last" -eq 127 ] || code=$last

# Stopped because the time was over, and not by somebody: work is left, so it waits in the queue
# again.
if [ -n "$time_is_over" ] && [ "$code" -eq 143 ]; then
  scontrol requeue "$task"
fi
[ "$code" -eq 3 ] && exit 0             # all is done, though some items failed
exit "$code"
