#!/bin/bash
# Trains on 2 machines with 4 GPUs each. Submit it with: sbatch docs/slurm.sh
# A stopped job saves its state first. After a preemption, SLURM restarts it. After the time limit, submit it again.
# Either way the training continues where it was.
# The run folder must be on a disk that all machines see. The data may be elsewhere, at the same path on each machine.
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

# One torchrun per machine, one process per GPU. The batch size counts the examples of all eight processes together.
srun torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node 4 \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:29500" \
    --rdzv-id "$SLURM_JOB_ID" \
    --max-restarts 3 \
    -m vaezoo_cli train conv-vae --data celeba --data-dir "$HOME/data" \
    --batch-size 2048 --precision bf16 --compile on --resume "$HOME/runs/celeba"
