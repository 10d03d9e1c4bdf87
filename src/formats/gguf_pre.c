// gguf_pre: the pre-tokenizers that tokenizer.ggml.pre names.
//
// Owns their patterns, and that Qwen normalizes first (NFC, as its tokenizer.json says). Refuses unknown names, because
// the wrong pattern gives wrong ids. Names and patterns are those of llama.cpp (src/llama-vocab.cpp); where it rewrote
// a pattern, this has the one of the model's own tokenizer.json. Called by vocab_gguf.
#include "load.h"

#include <stdio.h>
#include <string.h>

#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SUFFIXES "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"

#define BY_DIGITS(digits) SUFFIXES "|" BEFORE "\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define BY_CASE(suffixes, digits)                                                                                      \
    BEFORE UPPER "*" LOWER "+" suffixes "|" BEFORE UPPER "+" LOWER "*" suffixes "|" digits                             \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL
#define DEEPSEEK_WORDS                                                                                                 \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?"             \
    "[\\p{P}\\p{S}]+[\\r\\n]*" TAIL
#define CJK "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"
#define CJK_KANA "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+"
// The cased letters of Unicode 11, as DeepSeek LLM's pattern lists them.
#define DEEPSEEK_LETTERS                                                                                               \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"                    \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}"             \
    "\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"                    \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"                  \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"                  \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}"          \
    "\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"         \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                   \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}"                    \
    "\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}"                    \
    "\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}"                   \
    "\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"                  \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"                \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"        \
    "\\x{1E900}-\\x{1E943}"

typedef struct {
    const char *names;       // each between spaces
    const char *patterns[6]; // applied in order, each to the results of the one before
    bool ignore_merges, add_bos, nfc;
} NamedPatterns;

static const NamedPatterns pretokenizers[] = {
    {.names = " default ", .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names =
         " gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt olmo jais "
         "trillion granite-docling ",
     .patterns = {GPT2_PATTERN}},
    {.names = " llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
     .patterns = {BY_DIGITS("\\p{N}{1,3}")},
     .ignore_merges = true,
     .add_bos = true},
    {.names = " dbrx smaug-bpe glm4 chatglm-bpe ", .patterns = {BY_DIGITS("\\p{N}{1,3}")}},
    {.names = " qwen2 ", .patterns = {BY_DIGITS("\\p{N}")}, .nfc = true},
    {.names = " deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 ",
     .patterns = {BY_DIGITS("\\p{N}")}},
    {.names = " qwen35 ",
     .patterns = {SUFFIXES "|" BEFORE "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TAIL},
     .nfc = true},
    {.names = " deepseek-llm ",
     .patterns = {"[\\r\\n]", "\\s?[" DEEPSEEK_LETTERS "]+", "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", "\\s+$", CJK,
                  "\\p{N}+"}},
    {.names = " deepseek-coder ", .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {.names = " deepseek-v3 hunyuan-dense joyai-llm ", .patterns = {"\\p{N}{1,3}", CJK_KANA, DEEPSEEK_WORDS}},
    {.names = " falcon ", .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2_PATTERN, "[0-9][0-9][0-9]"}},
    {.names = " starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 ",
     .patterns = {"\\p{N}", GPT2_PATTERN}},
    {.names = " bloom poro-chat gpt3-finnish ", .patterns = {" ?[^(\\s|.,!?…。，、।۔،)]+"}},
    {.names = " viking ", .patterns = {" ?[^(\\s|.,!?…。，、।۔،)]+", "\\p{N}"}},
    {.names = " tekken ", .patterns = {BY_CASE("", "\\p{N}")}, .ignore_merges = true, .add_bos = true},
    {.names = " gpt-4o o200k gpt-oss llama4 kanana2 talkie minimax-m2 ",
     .patterns = {BY_CASE(SUFFIXES "?", "\\p{N}{1,3}")},
     .ignore_merges = true}, // tiktoken's rule, and gpt-oss's tokenizer.json
    {.names = " tiny_aya cohere2moe ",
     .patterns = {"\\d{1,3}(?=(?:\\d{3})*\\b)", BY_CASE(SUFFIXES "?", "\\p{N}{1,3}")}},
    {.names = " seed-coder ", .patterns = {SUFFIXES "|" BEFORE "\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" TAIL}},
    {.names = " superbpe ", .patterns = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
};

int gguf_pre_steps(Vocab *v, const char *name, size_t n, char *err, size_t errlen) {
    char wanted[64];
    int len = snprintf(wanted, sizeof wanted, " %.*s ", n < 60 ? (int)n : 60, name);
    const NamedPatterns *found = NULL;
    for (size_t i = 0; i < sizeof pretokenizers / sizeof *pretokenizers && !found; i++) {
        if (!memchr(name, ' ', n) && len > 2 && strstr(pretokenizers[i].names, wanted)) found = &pretokenizers[i];
    }
    if (!found) return fail(err, errlen, "expected a known pre-tokenizer, found '%.*s'", n < 60 ? (int)n : 60, name);
    v->ignore_merges = found->ignore_merges;
    v->no_bos = !found->add_bos;
    if (found->nfc && normalizer_add(&v->normalizer, NORMALIZE_NFC, err, errlen)) return -1;
    for (int i = 0; i < 6 && found->patterns[i]; i++) {
        if (pretokenizer_add_regex(&v->pretokenizer, found->patterns[i], SPLIT_ISOLATED, err, errlen)) return -1;
    }
    return 0;
}
