#!/bin/bash
# Trains on 2 machines with 4 GPUs each: sbatch docs/slurm.sh
# Stopped by its time limit or by jobs of higher priority, it has saved where it was: SLURM starts it again in the second
# case, sbatch does in the first, and either way it goes on from there.
# The run folder has to lie on a disk that all machines see; the data may lie anywhere, at the same path.
#SBATCH --job-name=vaezoo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# One torchrun a machine, one process a GPU. The batch is that of all eight processes together.
srun torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node 4 \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:29500" \
    --rdzv-id "$SLURM_JOB_ID" \
    --max-restarts 3 \
    -m vaezoo_cli train conv-vae --data celeba --data-dir "$HOME/data" \
    --batch-size 2048 --precision bf16 --compile on --resume "$HOME/runs/celeba"
