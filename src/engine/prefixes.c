// prefixes: see prefixes.h.
#include "prefixes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct Node Node;
struct Node {
    Node *parent, *children, *next; // next: of the same parent
    uint64_t used;                  // when it was found last
    uint64_t bytes;                 // of the blocks and the states
    int n;                          // tokens; fewer than KV_BLOCK only in a leaf
    int32_t tokens[KV_BLOCK];
    void *states;   // at its end; NULL: there are none, or they were not at hand
    void *blocks[]; // [n_caches]
};

typedef struct Tree Tree;
struct Tree {
    Tree *next;
    uint64_t kind;
    int n_caches;
    Node *root; // no tokens
};

struct Prefixes {
    pthread_mutex_t lock;
    KvPool *pool;
    uint64_t cap, clock;
    PrefixInfo info;
    Tree *trees;
};

// ---- nodes

static Node *node_new(const Tree *t, const int32_t *tokens, int n) {
    Node *node = calloc(1, sizeof *node + sizeof *node->blocks * (size_t)t->n_caches);
    if (!node) return NULL;
    node->n = n;
    if (n) memcpy(node->tokens, tokens, sizeof *tokens * (size_t)n);
    return node;
}

static void node_free(Prefixes *p, const Tree *t, Node *node) {
    for (int i = 0; i < t->n_caches; i++) kvpool_release(p->pool, node->blocks[i]);
    p->info.bytes -= node->bytes;
    free(node->states);
    free(node);
}

// A leaf leaves the tree.
static void node_drop(Prefixes *p, const Tree *t, Node *node) {
    Node **at = &node->parent->children;
    while (*at != node) at = &(*at)->next;
    *at = node->next;
    node_free(p, t, node);
}

static bool node_is_shared(const Tree *t, const Node *node) {
    int i = 0;
    while (i < t->n_caches && !kvpool_is_shared(node->blocks[i])) i++;
    return i < t->n_caches;
}

static int common(const Node *node, const int32_t *tokens, int n) {
    int most = n < node->n ? n : node->n, i = 0;
    while (i < most && node->tokens[i] == tokens[i]) i++;
    return i;
}

// ---- trees

static Tree *tree_of(Prefixes *p, uint64_t kind, const Memory *m) {
    Tree *t = p->trees;
    while (t && t->kind != kind) t = t->next;
    if (t) return t;
    t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->kind = kind;
    t->n_caches = memory_caches(m);
    t->root = node_new(t, NULL, 0);
    if (!t->root) {
        free(t);
        return NULL;
    }
    t->next = p->trees;
    p->trees = t;
    return t;
}

static void close_below(Prefixes *p, const Tree *t, Node *node) {
    for (Node *c = node->children, *next; c; c = next) {
        next = c->next;
        close_below(p, t, c);
    }
    node_free(p, t, node);
}

// The least recently used leaf below a node, older than *best; shared: even if a session shares it.
static void find_oldest(const Tree *t, Node *node, const Node *pinned, bool shared, Node **best) {
    for (Node *c = node->children; c; c = c->next) find_oldest(t, c, pinned, shared, best);
    bool leaf = !node->children && node->parent && node != pinned;
    if (leaf && (!*best || node->used < (*best)->used) && (shared || !node_is_shared(t, node))) *best = node;
}

static bool evict_one(Prefixes *p, const Node *pinned, bool shared) {
    Node *oldest = NULL;
    const Tree *of = NULL;
    for (const Tree *t = p->trees; t; t = t->next) {
        const Node *before = oldest;
        find_oldest(t, t->root, pinned, shared, &oldest);
        if (oldest != before) of = t;
    }
    if (oldest) node_drop(p, of, oldest);
    return oldest;
}

// Leaves that nobody shares first: the others free nothing yet.
static bool evict(Prefixes *p, const Node *pinned) {
    return evict_one(p, pinned, false) || evict_one(p, pinned, true);
}

// ---- the whole

Prefixes *prefixes_open(KvPool *pool) {
    Prefixes *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    pthread_mutex_init(&p->lock, NULL);
    p->pool = pool;
    return p;
}

void prefixes_close(Prefixes *p) {
    if (!p) return;
    for (Tree *t = p->trees, *next; t; t = next) {
        next = t->next;
        close_below(p, t, t->root);
        free(t);
    }
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void prefixes_limit(Prefixes *p, uint64_t cap) {
    pthread_mutex_lock(&p->lock);
    p->cap = cap;
    while (p->info.bytes > cap && evict(p, NULL)) continue;
    pthread_mutex_unlock(&p->lock);
}

PrefixInfo prefixes_info(Prefixes *p) {
    pthread_mutex_lock(&p->lock);
    PrefixInfo info = p->info;
    pthread_mutex_unlock(&p->lock);
    return info;
}

bool prefixes_evict(Prefixes *p) {
    pthread_mutex_lock(&p->lock);
    bool done = evict(p, NULL);
    pthread_mutex_unlock(&p->lock);
    return done;
}

bool prefixes_on(Prefixes *p, const Memory *m) {
    pthread_mutex_lock(&p->lock);
    uint64_t cap = p->cap;
    pthread_mutex_unlock(&p->lock);
    return cap && !memory_has_window(m);
}

// ---- adding

// The child of a node that holds these n tokens. Without states it may hold more.
static Node *find_child(const Node *node, const int32_t *tokens, int n, bool states) {
    Node *c = node->children;
    while (c && (common(c, tokens, n) < n || (states && c->n != n))) c = c->next;
    return c;
}

// A leaf with the first of these tokens only: the new node replaces it.
static Node *find_shorter(const Node *node, const int32_t *tokens, int n) {
    Node *c = node->children;
    while (c && (c->n >= n || common(c, tokens, n) < c->n)) c = c->next;
    return c;
}

static bool make_room(Prefixes *p, uint64_t bytes, const Node *pinned) {
    while (p->info.bytes + bytes > p->cap && evict(p, pinned)) continue;
    return p->info.bytes + bytes <= p->cap;
}

// Puts the states into a node at whose end they are.
static void add_states(Prefixes *p, Node *node, const Memory *m) {
    size_t bytes = memory_border_bytes(m);
    if (node->states || !make_room(p, bytes, node) || !(node->states = malloc(bytes))) return;
    memory_copy_border(m, node->states);
    node->bytes += bytes;
    p->info.bytes += bytes;
}

static Node *add_child(Prefixes *p, const Tree *t, Node *parent, PrefixText text, int first, int n) {
    Node *shorter = memory_border_bytes(text.memory) ? NULL : find_shorter(parent, text.tokens + first, n);
    if (shorter) node_drop(p, t, shorter);
    uint64_t bytes = memory_kv_block_bytes(text.memory);
    Node *node = make_room(p, bytes, parent) ? node_new(t, text.tokens + first, n) : NULL;
    if (!node) return NULL;
    memory_share_block(text.memory, first / KV_BLOCK, node->blocks);
    node->bytes = bytes;
    p->info.bytes += bytes;
    node->parent = parent;
    node->next = parent->children;
    return parent->children = node;
}

static void add_text(Prefixes *p, const Tree *t, PrefixText text, int n) {
    bool states = memory_border_bytes(text.memory);
    int border = memory_border(text.memory);
    Node *node = t->root;
    if (states && n > border) n = border;
    for (int first = 0, count; first < n && node; first += count) {
        count = n - first < KV_BLOCK ? n - first : KV_BLOCK;
        Node *child = find_child(node, text.tokens + first, count, states);
        node = child ? child : add_child(p, t, node, text, first, count);
        if (!node) return;
        node->used = p->clock;
        if (states && first + count == border) add_states(p, node, text.memory);
    }
}

void prefixes_add(Prefixes *p, PrefixText text, int n) {
    pthread_mutex_lock(&p->lock);
    Tree *t = tree_of(p, text.kind, text.memory);
    p->clock++;
    if (t) add_text(p, t, text, n);
    pthread_mutex_unlock(&p->lock);
}

// ---- finding

// The longest prefix of tokens[0..n) that a memory can start from: its last node, and its length. With states, one that
// ends where a node with states does.
static Node *find_longest(Prefixes *p, const Tree *t, const int32_t *tokens, int n, bool states, int *length) {
    Node *best = t->root, *at = t->root;
    int first = 0;
    *length = 0;
    while (at) {
        Node *next = NULL;
        for (Node *c = at->children; c; c = c->next) {
            int same = common(c, tokens + first, n - first);
            bool whole = same == c->n;
            if (whole && same == KV_BLOCK) next = c;
            if ((states && !(whole && c->states)) || first + same <= *length) continue;
            best = c;
            *length = first + same;
        }
        at = next;
        first += KV_BLOCK;
    }
    for (Node *c = best; c; c = c->parent) c->used = p->clock;
    return best;
}

int prefixes_attach(Prefixes *p, PrefixText text, int n, int least) {
    pthread_mutex_lock(&p->lock);
    Tree *t = tree_of(p, text.kind, text.memory);
    bool states = memory_border_bytes(text.memory);
    int length = 0;
    p->clock++;
    Node *last = t ? find_longest(p, t, text.tokens, n, states, &length) : NULL;
    int n_blocks = (length + KV_BLOCK - 1) / KV_BLOCK;
    void ***blocks = last && length > least ? malloc(sizeof *blocks * (size_t)n_blocks) : NULL;
    int rc = blocks ? length : -1, i = n_blocks;
    for (Node *node = last; blocks && node->parent; node = node->parent) blocks[--i] = node->blocks;
    if (blocks && memory_attach(text.memory, blocks, length, last->states)) rc = -1;
    if (rc > 0) {
        p->info.n_found++;
        p->info.tokens_found += (uint64_t)(length - least);
    }
    free(blocks);
    pthread_mutex_unlock(&p->lock);
    return rc;
}
