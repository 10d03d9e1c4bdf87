# Tessera. `make` builds ./run and build/*; `make demo` and `make test` are all a new machine needs.
#
# One build runs on every x86-64: only kernels/<rung>.c gets instruction-set flags, and cpu.c chooses at start.
# CONFIG names a build: release (default), san (address + undefined), tsan, fuzz, arm64.

CONFIG ?= release
B := build$(if $(filter-out release,$(CONFIG)),/$(CONFIG))

CC ?= gcc
CFLAGS ?= -O3 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes
CPPFLAGS += -Isrc -idirafter /usr/include -D_GNU_SOURCE -MMD -MP
LDLIBS += -lm -lpthread
override CFLAGS += -std=gnu11 $(WARN) -fno-math-errno -fno-trapping-math -pthread

ifeq ($(CONFIG),san)
  override CFLAGS += -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifeq ($(CONFIG),tsan)
  override CFLAGS += -O1 -fsanitize=thread
endif
ifeq ($(CONFIG),fuzz)
  CC := clang
  override CFLAGS += -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
endif
ifeq ($(CONFIG),arm64)
  CC := aarch64-linux-gnu-gcc
  RUNNER := qemu-aarch64 -L /usr/aarch64-linux-gnu
endif

MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
RUNGS_x86_64 := avx2 avx512
RUNGS_aarch64 := neon
FLAGS_avx2 := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=512

LIB_SRC := $(filter-out src/run.c,$(wildcard src/*.c)) src/kernels/kernels.c src/kernels/scalar.c $(RUNGS_$(MACHINE):%=src/kernels/%.c)
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
TOOLS := $(patsubst tools/%.c,$(B)/%,$(wildcard tools/*.c))
CHECKS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/check_*.c))
RUN := $(if $(filter release,$(CONFIG)),run,$(B)/run)

all: $(RUN) $(TOOLS)

run: $(B)/run
	@cp $< $@
$(B)/run: $(B)/src/run.o $(B)/libtessera.a
$(TOOLS): $(B)/%: $(B)/tools/%.o $(B)/libtessera.a
$(CHECKS): $(B)/tests/%: $(B)/tests/%.o $(B)/libtessera.a
$(B)/run $(TOOLS) $(CHECKS):
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/libtessera.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(FLAGS_$(basename $(notdir $<))) -c -o $@ $<

checks: $(CHECKS)

clean:
	rm -rf build run
.PHONY: all checks clean
.SECONDARY:
-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d)
