# Tessera. `make` builds ./run and build/*; `make demo` and `make test` are all a new machine needs.
#
# One build runs on every x86-64: only kernels/<rung>.c gets instruction-set flags, and cpu.c chooses at start.
# CONFIG names a build: release (default), san (address + undefined), tsan, fuzz, arm64.

CONFIG ?= release
B := build$(if $(filter-out release,$(CONFIG)),/$(CONFIG))

ifeq ($(origin CC),default)
  CC := gcc
endif
CFLAGS ?= -O3 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes
ROOMS := base text compute compute/kernels model formats engine run
CPPFLAGS += -Isrc $(ROOMS:%=-Isrc/%) -Itools/encdec -Itools/vit -idirafter /usr/include -D_GNU_SOURCE -MMD -MP
SHELL := /bin/bash
LDLIBS += -ljansson -lpcre2-8 -lutf8proc -lz -lm -lpthread
LINE_LIBS := -ledit # of ./run alone
override CFLAGS += -std=gnu11 $(WARN) -fno-math-errno -fno-trapping-math -pthread

ifeq ($(CONFIG),san)
  override CFLAGS += -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifeq ($(CONFIG),tsan)
  override CFLAGS += -O1 -fsanitize=thread
endif
ifeq ($(CONFIG),fuzz)
  CC := clang
  override CFLAGS += -O2 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
    -fno-sanitize-coverage=trace-cmp
endif
ifeq ($(CONFIG),arm64)
  CC := aarch64-linux-gnu-gcc
  LDFLAGS += -static # the cross compiler's loader and the arm64 packages' libc need not fit each other
  LINE_LIBS += -ltinfo -lbsd -lmd
endif

MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
RUNGS_x86_64 := avx2 avx512 avx512bf16 amx
RUNGS_aarch64 := neon neon_dot neon_bf16
FLAGS_avx2 := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=512
FLAGS_avx512bf16 := $(FLAGS_avx512) -mavx512bf16
FLAGS_amx := $(FLAGS_avx512bf16) -mamx-tile -mamx-bf16
FLAGS_neon_dot := -march=armv8.2-a+dotprod
FLAGS_neon_bf16 := -march=armv8.2-a+dotprod+bf16
FLAGS_picture := -fwrapv -fno-sanitize=nonnull-attribute,shift # stb's JPEG code counts on sums that wrap
FLAGS_check_encdec := -fno-tree-vectorize # gcc 12 for aarch64 crashes on one of its loops; the same below
FLAGS_check_kernels := -fno-tree-vectorize
FLAGS_tiles := $(FLAGS_avx512bf16)
TILES_x86_64 := tests/tiles.c # the amx rung over tile operations in C

RUN_SRC := src/run/run.c src/run/dialogue.c src/run/lines.c
LIB_SRC := $(filter-out $(RUN_SRC) src/compute/kernels/%,$(wildcard $(ROOMS:%=src/%/*.c))) \
  $(patsubst %,src/compute/kernels/%.c,kernels scalar $(RUNGS_$(MACHINE)))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
# Parts that tools share: they are linked where the rules below say so.
TOOL_PARTS := growth_plot probe profile_table gguf_writer gguf_types gguf_model gguf_vocab logits_file
TOOLS := $(patsubst tools/%.c,$(B)/%,$(filter-out $(TOOL_PARTS:%=tools/%.c),$(wildcard tools/*.c)))
# Programs of several files: tools/NAME/NAME.c is the program, its neighbours are parts that the checks use too.
SUITES := encdec vit
PART_SRC := $(filter-out $(foreach s,$(SUITES),tools/$s/$s.c),$(wildcard $(SUITES:%=tools/%/*.c))) tools/logits_file.c
PROGRAMS := $(TOOLS) $(SUITES:%=$(B)/%)
CHECKS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/check_*.c))
RUN := $(if $(filter release,$(CONFIG)),run,$(B)/run)

all: $(RUN) $(PROGRAMS)

run: $(B)/run
	@cp $< $@
$(B)/run: $(RUN_SRC:%.c=$(B)/%.o) $(B)/libtessera.a
$(B)/run: LDLIBS += $(LINE_LIBS)
$(B)/bench: $(patsubst %,$(B)/tools/%.o,growth_plot probe profile_table)
$(B)/perplexity: $(B)/tools/logits_file.o
$(B)/quantize $(B)/synth: $(patsubst %,$(B)/tools/gguf_%.o,writer types model vocab)
$(TOOLS): $(B)/%: $(B)/tools/%.o $(B)/libtessera.a
$(foreach s,$(SUITES),$(eval $(B)/$s: $(B)/tools/$s/$s.o))
$(SUITES:%=$(B)/%): $(B)/libparts.a $(B)/libtessera.a
$(CHECKS): $(B)/tests/%: $(B)/tests/%.o $(B)/libparts.a $(B)/libtessera.a
$(B)/tests/check_kernels: $(TILES_$(MACHINE):%.c=$(B)/%.o)
$(B)/run $(PROGRAMS) $(CHECKS):
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/libtessera.a: $(LIB_OBJ)
$(B)/libparts.a: $(PART_SRC:%.c=$(B)/%.o)
$(B)/libtessera.a $(B)/libparts.a:
	@rm -f $@
	$(AR) rcs $@ $^
$(B)/%.o: %.c | check-deps
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(FLAGS_$(basename $(notdir $<))) -c -o $@ $<

checks: $(CHECKS)

# ---- what people type

DEMO_MODEL := models/stories.bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# What is not libc, and the package that has it.
HEADERS := stb/stb_ds.h jansson.h pcre2.h utf8proc.h zlib.h histedit.h
PACKAGE_stb_ds.h := libstb-dev
PACKAGE_jansson.h := libjansson-dev
PACKAGE_pcre2.h := libpcre2-dev
PACKAGE_utf8proc.h := libutf8proc-dev
PACKAGE_zlib.h := zlib1g-dev
PACKAGE_histedit.h := libedit-dev

# Install what is missing, saying so; nothing when nothing is.
deps:
	@missing=; \
	echo '#include <stdio.h>' | $(CC) -E - >/dev/null 2>&1 || missing="$$missing libc6-dev"; \
	$(foreach h,$(HEADERS),test -f /usr/include/$h || missing="$$missing $(PACKAGE_$(notdir $h))";) $(call install)
install = if test -n "$$missing"; then \
	    echo "installing$$missing ($(or $(SUDO),as root): apt-get install)"; \
	    $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends $$missing; \
	  fi

check-deps:
	@$(foreach h,$(HEADERS),test -f /usr/include/$h || { echo "missing: $h. Get it with 'make deps', or:" \
	  "apt-get install $(PACKAGE_$(notdir $h))" >&2; exit 1; };)

demo: deps
	@$(MAKE) --no-print-directory all
	./run $(DEMO_MODEL) -p "Once upon a time" --temp 0.5 -s 3
	build/encdec models/g2p -p "small machines can speak" -b 4
	build/vit models/vit models/vit/samples/ankle-boot.png

# The pictures that the shipped model is scored on; where the package cannot be had, that check skips, saying so.
FASHION := /usr/share/datasets/fashion-mnist
test-data:
	@missing=; test -d $(FASHION) || missing="$$missing dataset-fashion-mnist"; $(call install) || true

test: deps test-data
	@$(MAKE) --no-print-directory all checks
	@tests/run_checks.sh $(CHECKS) tests/check_readme.sh

# Checks that start no thread, neither their own nor a program's, are nothing for tsan; nor are more rungs than one.
ALONE_tsan := kernels load picture quant rope safetensors settings tokenizer tokenizer_kinds tokenizer_steps words
ENV_tsan := TESSERA_TEST_BEST_RUNG=1
san tsan: deps test-data
	@$(MAKE) --no-print-directory CONFIG=$@ all checks
	@TESSERA_BUILD=build/$@ TESSERA_TEST_QUICK=1 $(ENV_$@) tests/run_checks.sh \
	  $(filter-out $(ALONE_$@:%=build/$@/tests/check_%),$(CHECKS:$(B)/%=build/$@/%))

# Cross-compiled, and run by qemu-user; the libraries come as Debian's arm64 packages.
ARM64_LIB := /usr/lib/aarch64-linux-gnu
test-arm64: deps test-data
	@test -f $(ARM64_LIB)/libjansson.a || $(SUDO) dpkg --add-architecture arm64
	@missing=; test -f $(ARM64_LIB)/libjansson.a || missing="$$missing libjansson-dev:arm64"; \
	test -f $(ARM64_LIB)/libpcre2-8.a || missing="$$missing libpcre2-dev:arm64"; \
	test -f $(ARM64_LIB)/libutf8proc.a || missing="$$missing libutf8proc-dev:arm64"; \
	test -f $(ARM64_LIB)/libz.a || missing="$$missing zlib1g-dev:arm64"; \
	test -f $(ARM64_LIB)/libedit.a || missing="$$missing libedit-dev:arm64"; $(call install)
	@missing=; command -v aarch64-linux-gnu-gcc >/dev/null || missing="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; \
	command -v qemu-aarch64 >/dev/null || missing="$$missing qemu-user"; $(call install)
	@$(MAKE) --no-print-directory CONFIG=arm64 all checks
	@TESSERA_BUILD=build/arm64 TESSERA_TEST_QUICK=1 RUNNER=qemu-aarch64 \
	  tests/run_checks.sh $(CHECKS:$(B)/%=build/arm64/%)

# Fuzz every reader for FUZZ_SECONDS each; the corpus stays in build/fuzz/corpus.
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: deps
	@missing=; command -v clang >/dev/null || missing="clang"; $(call install)
	@$(MAKE) --no-print-directory CONFIG=fuzz fuzzers
	@for f in $(FUZZERS); do mkdir -p build/fuzz/corpus/$${f##*/}; echo "== $${f##*/}"; \
	  ASAN_OPTIONS=quarantine_size_mb=1:malloc_context_size=0 \
  $$f -max_total_time=$(FUZZ_SECONDS) -entropic=0 -max_len=200 -print_final_stats=1 build/fuzz/corpus/$${f##*/} 2>&1 | \
	  grep -E 'SUMMARY|ERROR|number_of_executed|Test unit'; test $${PIPESTATUS[0]} = 0 || exit 1; done
fuzzers: $(FUZZERS)
ifeq ($(CONFIG),fuzz)
$(FUZZERS): build/fuzz/%: $(B)/tests/fuzz/%.o $(B)/libparts.a $(B)/libtessera.a
	$(CC) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS)
endif

# The same files through llama.cpp, as npm has it; see tools/peers.mjs for what PEER_MODELS and PEER_ROUNDS say.
peers: deps
	@$(MAKE) --no-print-directory run build/bench build/synth
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "skipped: npm is not installed"; exit 0; }; \
	node tools/peers.mjs

format:
	clang-format -i src/*.h src/*/*.[ch] src/*/*/*.[ch] tools/*.[ch] tools/*/*.[ch] tests/*.[ch] tests/fuzz/*.[ch]

clean:
	rm -rf build run
.PHONY: all checks deps check-deps test-data demo test san tsan test-arm64 fuzz fuzzers peers format clean
.SECONDARY:
-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d $(B)/*/*/*/*.d)
