// habits: the flags that llama.cpp's programs have in common and that change nothing here, or nothing here can follow.
//
// Owns what is said of each. They stand behind a program's own flags, which go before them. Source of the names:
// github.com/ggml-org/llama.cpp, common/arg.cpp and tools/llama-bench.
#pragma once
#include "cli.h"

#define HABIT_NOTE(flags, takes, says)                                                                                 \
    { .names = (flags), .value = (takes), .kind = FLAG_NOTE, .words = (says) }
#define HABIT_REFUSED(flags, takes, says)                                                                              \
    { .names = (flags), .value = (takes), .kind = FLAG_REFUSED, .words = (says) }

// Of the machine: devices, threads, memory, logs.
#define MACHINE_HABITS                                                                                                 \
    HABIT_NOTE("-ngl --n-gpu-layers --gpu-layers -mg --main-gpu -ts --tensor-split -sm --split-mode -dev --device "    \
               "-ot --override-tensor -ncmoe --n-cpu-moe",                                                             \
               "N", "all layers run on the CPU"),                                                                      \
        HABIT_NOTE("-cmoe --cpu-moe", NULL, "all layers run on the CPU"),                                              \
        HABIT_NOTE("-fa --flash-attn", "[on|off|auto|1|0]", "attention is always fused"),                              \
        HABIT_NOTE("--no-mmap --mmap -dio --direct-io -ndio --no-direct-io", NULL, "weights are always mapped"),       \
        HABIT_NOTE("--mlock", NULL, "nothing is locked in memory"),                                                    \
        HABIT_NOTE("-b --batch-size -ub --ubatch-size", "N", "prompts are read in blocks of a fixed size"),            \
        HABIT_NOTE("-tb --threads-batch", "N", "-t is for prompts too"),                                               \
        HABIT_NOTE("--numa", "TYPE", "memory is placed by the system"),                                                \
        HABIT_NOTE("-nkvo --no-kv-offload -kvo --kv-offload -kvu --kv-unified --op-offload --no-op-offload --no-host", \
                   NULL, "the cache is in main memory"),                                                               \
        HABIT_NOTE("--prio --poll -C --cpu-mask -Cr --cpu-range --cpu-strict --prio-batch --poll-batch -Cb "           \
                   "--cpu-mask-batch -Crb --cpu-range-batch --cpu-strict-batch",                                       \
                   "X", "threads have the system's priority"),                                                         \
        HABIT_NOTE("--no-warmup --warmup", NULL, "there is no warm-up run"),                                           \
        HABIT_NOTE("--check-tensors", NULL, "sizes are always checked"),                                               \
        HABIT_NOTE("--repack --no-repack -nr", NULL, "weights are used as they lie"),                                  \
        HABIT_NOTE("--swa-full", NULL, "a window keeps what it sees"),                                                 \
        HABIT_NOTE("--offline", NULL, "nothing is ever downloaded"),                                                   \
        HABIT_NOTE("-v --verbose --log-verbose --verbose-prompt --log-prefix --log-timestamps", NULL,                  \
                   "there is no log"),                                                                                 \
        HABIT_NOTE("-lv --verbosity --log-verbosity --log-file", "X", "there is no log"),                              \
        HABIT_NOTE("--log-colors", "[on|off|auto]", "there is no log"),                                                \
        HABIT_REFUSED("--list-devices", NULL, "there is no device but the CPU")

// Of the model.
#define MODEL_HABITS                                                                                                   \
    HABIT_REFUSED("-hf -hfr --hf-repo -hff --hf-file -mu --model-url", "X",                                            \
                  "nothing is downloaded here; give the file or folder as MODEL"),                                     \
        HABIT_REFUSED("--lora --lora-scaled --control-vector --control-vector-scaled", "X",                            \
                      "there are no adapters here"),                                                                   \
        HABIT_REFUSED("--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx "                \
                      "--yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast",                        \
                      "X", "positions are as the model's files say"),                                                  \
        HABIT_REFUSED("--override-kv", "X", "settings are as the model's files say")
