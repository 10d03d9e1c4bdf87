# Tessera. `make` builds ./run and build/*; `make demo` and `make test` are all a new machine needs.
#
# One build runs on every x86-64: only kernels/<level>.c gets instruction-set flags, and cpu.c chooses at start.
# CONFIG names a build: release (default), san (address + undefined), tsan, fuzz, arm64.

CONFIG ?= release
B := build$(if $(filter-out release,$(CONFIG)),/$(CONFIG))

ifeq ($(origin CC),default)
  CC := gcc
endif
CFLAGS ?= -O3 -g
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes
CPPFLAGS += -idirafter /usr/include -D_GNU_SOURCE -MMD -MP
SHELL := /bin/bash
LDLIBS += -ljansson -lpcre2-8 -lutf8proc -lz -lm -lpthread
LINE_LIBS := -ledit # of ./run alone
PICTURE_LIBS := -lpng16 -lturbojpeg -lgif -lwebpdemux -lwebp -lexif -lz -lm # of what reads pictures
HTTP_LIBS := -levent # of build/serve
override CFLAGS += -std=gnu11 $(WARN) -fno-math-errno -fno-trapping-math -pthread

# -g1: the lines that reports name, compiled in two thirds of the time; registers without regions: in half of it.
SAN_FLAGS := -O1 -g1 $(if $(findstring clang,$(CC)),,-fira-region=one)
ifeq ($(CONFIG),san)
  override CFLAGS += $(SAN_FLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifeq ($(CONFIG),tsan)
  override CFLAGS += $(SAN_FLAGS) -fsanitize=thread
  LDFLAGS += -Wl,--wrap=__tsan_read_range
  TSAN_READS := $(B)/tests/tsan_reads.o
endif
ifeq ($(CONFIG),fuzz)
  CC := clang
  override CFLAGS += -O2 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
    -fno-sanitize-coverage=trace-cmp
endif
ifeq ($(CONFIG),arm64)
  CC := aarch64-linux-gnu-gcc
  override CFLAGS += -g1
  LDFLAGS += -static # the cross compiler's loader and the arm64 packages' libc need not fit each other
  LINE_LIBS += -ltinfo -lbsd -lmd
  # Debian's libevent-dev can be installed for one machine at a time.
  LEFT_OUT := $(addprefix tools/serve/,http.c serve.c) tests/check_serve.c
endif

MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
LEVELS_x86_64 := avx2 int16 avx512 vnni avx512bf16 amx
LEVELS_aarch64 := neon neon_dot neon_bf16
# Vector kernels with lines but no variables for a debugger: compiled in less than two thirds of the time.
LINES_ONLY := $(if $(filter -g,$(CFLAGS)),-g1)
FLAGS_avx2 := $(LINES_ONLY) -mavx2 -mfma -mf16c
FLAGS_int16 := $(FLAGS_avx2)
FLAGS_avx512 := $(LINES_ONLY) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mprefer-vector-width=512
FLAGS_vnni := $(FLAGS_avx512)
FLAGS_avx512bf16 := $(FLAGS_avx512) -mavx512bf16
FLAGS_amx := $(FLAGS_avx512bf16) -mamx-tile -mamx-bf16 -mamx-int8
FLAGS_neon := $(LINES_ONLY)
FLAGS_neon_dot := $(LINES_ONLY) -march=armv8.2-a+dotprod
FLAGS_neon_bf16 := $(LINES_ONLY) -march=armv8.2-a+dotprod+bf16
FLAGS_cli = -DTESSERA_VERSION='"$(VERSION)"'
FLAGS_bench_row = $(FLAGS_cli)
FLAGS_picture := -fno-sanitize=shift # stb_image_write's JPEG, for the tests
FLAGS_stb := -fno-sanitize=shift # stb_ds's hash of 8 bytes
FLAGS_picture_file := -fno-sanitize=shift # stb_image's BMP
FLAGS_check_encdec := -fno-tree-vectorize # gcc 12 for aarch64 crashes on one of its loops; the same below
FLAGS_check_kernels := -fno-tree-vectorize
FLAGS_tiles := $(FLAGS_avx512bf16)
TILES_x86_64 := tests/tiles.c # the amx level over tile operations in C

# ---- rooms: each file sees the headers of the rooms that its own may use, and no others

SEES_base := src/base
SEES_text := $(SEES_base) src/text
SEES_compute := $(SEES_base) src/compute src/compute/kernels
SEES_model := $(SEES_compute) src/model src/model/mixers
SEES_formats := $(SEES_model) src/text src/formats
SEES_engine := $(SEES_formats) src/engine src
SEES_run := $(SEES_base) src/run src
SEES_others := $(SEES_engine) src/run tools tools/atlas tools/bench tools/convnet tools/cora tools/encdec tools/serve tools/vit tests tests/bad
room = $(firstword $(filter base text compute model formats engine run,$(word 2,$(subst /, ,$(filter src/%,$1)))) others)
includes = $(addprefix -I,$(SEES_$(call room,$1)))

LIB_SRC := $(filter-out src/compute/kernels/%,$(wildcard $(foreach r,base text compute model model/mixers formats engine,src/$r/*.c))) \
  $(patsubst %,src/compute/kernels/%.c,kernels scalar $(LEVELS_$(MACHINE)))
RUN_SRC := $(wildcard src/run/*.c)
# Programs of several files: tools/NAME/NAME.c is the program, its neighbours are parts that the checks use too.
SUITES := atlas bench convnet cora encdec serve vit
TOOL_PARTS := curves gguf_writer gguf_types gguf_model gguf_layers gguf_list gguf_recurrent gguf_vocab logits_file synth_vocab svg
PART_SRC := src/run/cli.c src/run/outfile.c src/run/stops.c $(TOOL_PARTS:%=tools/%.c) \
  $(filter-out $(LEFT_OUT) $(foreach s,$(SUITES),tools/$s/$s.c),$(wildcard $(SUITES:%=tools/%/*.c)))
TOOLS := $(patsubst tools/%.c,$(B)/%,$(filter-out $(PART_SRC),$(wildcard tools/*.c)))
PROGRAMS := $(TOOLS) $(patsubst %,$(B)/%,$(filter-out $(patsubst tools/serve/%.c,%,$(LEFT_OUT)),$(SUITES)))
CHECKS := $(patsubst tests/%.c,$(B)/tests/%,$(filter-out $(LEFT_OUT),$(wildcard tests/check_*.c)))
RUN := $(if $(filter release,$(CONFIG)),run,$(B)/run)
# Everything, for the project's own programs; what others link to is libtessera.
OWN := $(B)/libparts.a $(B)/libcore.a

all: $(RUN) $(PROGRAMS) $(if $(filter release,$(CONFIG)),$(B)/libtessera.a)

run: $(B)/run
	@cp $< $@
$(B)/run: $(RUN_SRC:%.c=$(B)/%.o) $(B)/libcore.a
$(B)/run: LDLIBS += $(LINE_LIBS)
$(TOOLS): $(B)/%: $(B)/tools/%.o $(OWN)
$(foreach s,$(SUITES),$(eval $(B)/$s: $(B)/tools/$s/$s.o))
$(SUITES:%=$(B)/%): $(OWN)
$(B)/vit $(foreach c,picture vit,$(B)/tests/check_$c): LDLIBS += $(PICTURE_LIBS)
$(B)/serve $(B)/tests/check_serve: LDLIBS += $(HTTP_LIBS)
$(B)/tools/serve/page.o: tools/serve/page.html
$(B)/tools/atlas/facts.o: tools/atlas/facts.json
$(CHECKS): $(B)/tests/%: $(B)/tests/%.o $(OWN)
# What a check computes beside the library takes less time than compiling it with more.
$(CHECKS:%=%.o): override CFLAGS += $(if $(filter release arm64,$(CONFIG)),-O2 -g1)
$(B)/tests/check_kernels: $(TILES_$(MACHINE):%.c=$(B)/%.o)
$(B)/run $(PROGRAMS) $(CHECKS): $(TSAN_READS)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/libcore.a: $(LIB_SRC:%.c=$(B)/%.o)
$(B)/libparts.a: $(PART_SRC:%.c=$(B)/%.o)
$(B)/libcore.a $(B)/libparts.a:
	@rm -f $@
	$(AR) rcs $@ $^
$(B)/%.o: %.c | check-deps
	@mkdir -p $(@D)
	$(CC) $(call includes,$<) $(CPPFLAGS) $(CFLAGS) $(FLAGS_$(basename $(notdir $<))) -c -o $@ $<

# ---- the library: the symbols of tessera.h and no others

OBJCOPY := $(shell $(CC) -print-prog-name=objcopy)
VISIBLE := -fvisibility=hidden
$(LIB_SRC:%.c=$(B)/%.o): override CFLAGS += $(VISIBLE)
$(B)/libtessera.o: $(LIB_SRC:%.c=$(B)/%.o)
	$(CC) -r -nostdlib -o $@ $^
	$(OBJCOPY) --localize-hidden $@
$(B)/libtessera.a: $(B)/libtessera.o
	@rm -f $@
	$(AR) rcs $@ $^
VERSION := 0.9.0
$(B)/pic/libtessera.so: $(LIB_SRC:%.c=$(B)/pic/%.o)
	$(CC) -shared -Wl,-soname,libtessera.so.0 $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/pic/%.o: %.c | check-deps
	@mkdir -p $(@D)
	$(CC) $(call includes,$<) $(CPPFLAGS) $(CFLAGS) $(VISIBLE) -fPIC $(FLAGS_$(basename $(notdir $<))) -c -o $@ $<

PREFIX ?= /usr/local
define PKG_CONFIG
prefix=$(PREFIX)
Name: tessera
Description: a minimal transformer inference engine
Version: $(VERSION)
Requires.private: jansson libpcre2-8 libutf8proc
Cflags: -I$${prefix}/include
Libs: -L$${prefix}/lib -ltessera
Libs.private: -lm -lpthread
endef
export PKG_CONFIG
install: deps
	@$(MAKE) --no-print-directory all $(B)/pic/libtessera.so
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install run $(DESTDIR)$(PREFIX)/bin/tessera
	install $(B)/serve $(DESTDIR)$(PREFIX)/bin/tessera-serve
	install -m 644 src/tessera.h $(DESTDIR)$(PREFIX)/include
	install -m 644 $(B)/libtessera.a $(DESTDIR)$(PREFIX)/lib
	install $(B)/pic/libtessera.so $(DESTDIR)$(PREFIX)/lib/libtessera.so.0
	ln -sf libtessera.so.0 $(DESTDIR)$(PREFIX)/lib/libtessera.so
	@echo "$$PKG_CONFIG" >$(DESTDIR)$(PREFIX)/lib/pkgconfig/tessera.pc

checks: $(CHECKS)

# ---- what people type

DEMO_MODEL := models/stories.bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# What is not libc, and the package that has it.
HEADERS := stb/stb_ds.h jansson.h pcre2.h utf8proc.h zlib.h histedit.h
PICTURE_HEADERS := png.h turbojpeg.h gif_lib.h webp/demux.h libexif/exif-data.h # of build/vit alone
HTTP_HEADERS := event2/http.h # of build/serve alone
PACKAGE_stb_ds.h := libstb-dev
PACKAGE_jansson.h := libjansson-dev
PACKAGE_pcre2.h := libpcre2-dev
PACKAGE_utf8proc.h := libutf8proc-dev
PACKAGE_zlib.h := zlib1g-dev
PACKAGE_histedit.h := libedit-dev
PACKAGE_png.h := libpng-dev
PACKAGE_turbojpeg.h := libturbojpeg0-dev
PACKAGE_gif_lib.h := libgif-dev
PACKAGE_demux.h := libwebp-dev
PACKAGE_exif-data.h := libexif-dev
PACKAGE_http.h := libevent-dev

# Install what is missing, saying so; nothing when nothing is.
deps:
	@missing=; \
	echo '#include <stdio.h>' | $(CC) -E - >/dev/null 2>&1 || missing="$$missing libc6-dev"; \
	$(foreach h,$(HEADERS) $(PICTURE_HEADERS) $(HTTP_HEADERS),test -f /usr/include/$h || missing="$$missing $(PACKAGE_$(notdir $h))";) $(call install)
install = if test -n "$$missing"; then \
	    echo "installing$$missing ($(or $(SUDO),as root): apt-get install)"; \
	    $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends $$missing; \
	  fi

$(B)/tools/vit/picture_file.o: | check-picture-deps
$(B)/tools/serve/http.o: | check-http-deps
check-deps: NEEDED := $(HEADERS)
check-picture-deps: NEEDED := $(PICTURE_HEADERS)
check-http-deps: NEEDED := $(HTTP_HEADERS)
check-deps check-picture-deps check-http-deps:
	@$(foreach h,$(NEEDED),test -f /usr/include/$h || { echo "missing: $h. Get it with 'make deps', or:" \
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
	@tests/run_checks.sh $(CHECKS) tests/check_rooms.sh tests/check_readme.sh tests/check_peers.sh

# The checks of another build, without those that have nothing for it.
checks_of = $(filter-out $(ALONE_$1:%=build/$1/tests/check_%),$(CHECKS:$(B)/%=build/$1/%))
# Nothing for tsan: checks that start no thread, or only programs that other checks run with threads; more levels
# than one.
ALONE_tsan := atlas atlas_exact atlas_masks atlas_models atlas_operators atlas_program bad bf16 containers conversion \
  encdec_program first_messages gguf heads hf hostile_families inspect jinja kernels kvcache load outfile \
  picture quant quantize rope safetensors sampler schema sentencepiece serve_tools settings tokenizer tokenizer_json \
  tokenizer_kinds tokenizer_steps words
ENV_tsan := TESSERA_TEST_BEST_LEVEL=1
san tsan: deps test-data
	@$(MAKE) --no-print-directory CONFIG=$@ all $(call checks_of,$@)
	@TESSERA_BUILD=build/$@ TESSERA_TEST_QUICK=1 $(ENV_$@) tests/run_checks.sh $(call checks_of,$@)

# Nothing for arm64: checks that read bytes and compute little, or drive programs whose parts other checks run there.
ALONE_arm64 := atlas_models atlas_program bad batch bf16 conversion draft encdec_program hostile_families inspect jinja \
  outfile perplexity picture quantize schema serve serve_text serve_tools tools
# Cross-compiled, and run by qemu-user; the libraries come as Debian's arm64 packages.
ARM64_LIB := /usr/lib/aarch64-linux-gnu
test-arm64: deps test-data
	@test -f $(ARM64_LIB)/libjansson.a || $(SUDO) dpkg --add-architecture arm64
	@missing=; test -f $(ARM64_LIB)/libjansson.a || missing="$$missing libjansson-dev:arm64"; \
	test -f $(ARM64_LIB)/libpcre2-8.a || missing="$$missing libpcre2-dev:arm64"; \
	test -f $(ARM64_LIB)/libutf8proc.a || missing="$$missing libutf8proc-dev:arm64"; \
	test -f $(ARM64_LIB)/libz.a || missing="$$missing zlib1g-dev:arm64"; \
	test -f $(ARM64_LIB)/libedit.a || missing="$$missing libedit-dev:arm64"; \
	test -f $(ARM64_LIB)/libpng16.a || missing="$$missing libpng-dev:arm64"; \
	test -f $(ARM64_LIB)/libturbojpeg.a || missing="$$missing libturbojpeg0-dev:arm64"; \
	test -f $(ARM64_LIB)/libgif.a || missing="$$missing libgif-dev:arm64"; \
	test -f $(ARM64_LIB)/libwebpdemux.a || missing="$$missing libwebp-dev:arm64"; \
	test -f $(ARM64_LIB)/libexif.a || missing="$$missing libexif-dev:arm64"; $(call install)
	@missing=; command -v aarch64-linux-gnu-gcc >/dev/null || missing="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; \
	command -v qemu-aarch64 >/dev/null || missing="$$missing qemu-user"; $(call install)
	@$(MAKE) --no-print-directory CONFIG=arm64 all $(call checks_of,arm64)
	@TESSERA_BUILD=build/arm64 TESSERA_TEST_QUICK=1 RUNNER=qemu-aarch64 tests/run_checks.sh $(call checks_of,arm64)

# Fuzz every reader for FUZZ_SECONDS each; the corpus stays in build/fuzz/corpus. First each tries the
# malformed inputs of these tables in tests/bad, whole.
SEEDS := build/fuzz/seeds
SEEDS_fuzz_gguf := gguf
SEEDS_fuzz_hf := hf
SEEDS_fuzz_llama2c := llama2c
SEEDS_fuzz_llama2c_tokenizer := tokenizer_bin
SEEDS_fuzz_logits_file := logits
SEEDS_fuzz_safetensors := safetensors shard_index json preprocessor
SEEDS_fuzz_vocab_json := tokenizer_json
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: deps
	@missing=; command -v clang >/dev/null || missing="clang"; $(call install)
	@$(MAKE) --no-print-directory CONFIG=fuzz fuzzers
	@$(MAKE) --no-print-directory build/tests/check_bad && build/tests/check_bad --seeds $(SEEDS) > /dev/null
	@$(foreach f,$(notdir $(FUZZERS)),$(if $(SEEDS_$f),build/fuzz/$f -runs=0 $(SEEDS_$f:%=$(SEEDS)/%) 2>&1 | \
	  grep -E 'SUMMARY|ERROR'; test $${PIPESTATUS[0]} = 0 || exit 1;))
	@for f in $(FUZZERS); do mkdir -p build/fuzz/corpus/$${f##*/}; echo "== $${f##*/}"; \
	  ASAN_OPTIONS=quarantine_size_mb=1:malloc_context_size=0 \
  $$f -max_total_time=$(FUZZ_SECONDS) -entropic=0 -max_len=200 -print_final_stats=1 build/fuzz/corpus/$${f##*/} 2>&1 | \
	  grep -E 'SUMMARY|ERROR|number_of_executed|Test unit'; test $${PIPESTATUS[0]} = 0 || exit 1; done
fuzzers: $(FUZZERS)
ifeq ($(CONFIG),fuzz)
$(B)/fuzz_picture: LDLIBS += $(PICTURE_LIBS)
$(FUZZERS): build/fuzz/%: $(B)/tests/fuzz/%.o $(OWN)
	$(CC) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(LDLIBS)
endif

# The same files through llama.cpp, as npm has it, and through any llama-bench; see tools/peers.mjs for PEER_BENCH and
# its other settings.
peers: deps
	@$(MAKE) --no-print-directory run build/bench build/synth
	@command -v node >/dev/null || { echo "skipped: node is not installed"; exit 0; }; \
	node tools/peers.mjs

format:
	clang-format -i $$(git ls-files "*.[ch]")

clean:
	rm -rf build run
# How a file is compiled; tests/check_rooms.sh asks.
show-includes:
	@echo $(call includes,$(FILE))
.PHONY: all install show-includes checks deps check-deps check-picture-deps check-http-deps test-data demo test san tsan test-arm64 fuzz fuzzers peers format clean
.SECONDARY:
-include $(wildcard $(B)/*/*.d $(B)/*/*/*.d $(B)/*/*/*/*.d)
