// check_atlas_operators: the atlas's linear, recurrent, long-memory, vision and graph mechanisms against naive versions
// in double, and published identities between them.
#include "atlas_reference.h"

#include "graph.h"

enum { MAX_WIDTH = 256 }; // of features and of values in the cases

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static double softplus(double x) {
    return x > 30 ? x : log1p(exp(x));
}
static const float *gate_at(const Shape *s, const Rows *r, int t, int head) {
    return r->gates + ((int64_t)t * s->n_heads + head) * s->head_dim;
}
static void widen(double *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = (double)x[i];
}
static float *drawn(uint64_t *seed, int64_t n, double deviation) {
    float *x = need_floats(n);
    random_normals(seed, x, n, (float)deviation);
    return x;
}

// ---- one recurrence for all: S = diag(decay) S - add (S_before^T remove)^T + k v^T,  o = S^T q

typedef struct {
    double q[MAX_WIDTH], k[MAX_WIDTH], v[MAX_WIDTH + 1], decay[MAX_WIDTH], remove[MAX_WIDTH], add[MAX_WIDTH];
} Token;

// Fills a token of one head, zeroed before; the widths are of features and values.
typedef void (*NaiveToken)(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token);

// o [n][n_heads][v_width]
static void naive_recurrence(const Shape *s, const Rows *r, NaiveToken make, const void *context, int width,
                             int v_width, double *o) {
    double *state = need(sizeof *state * (size_t)(width * v_width));
    for (int h = 0; h < s->n_heads; h++) {
        memset(state, 0, sizeof *state * (size_t)(width * v_width));
        for (int t = 0; t < r->n_keys; t++) {
            Token token = {0};
            double old[MAX_WIDTH + 1] = {0}, *out = o + ((int64_t)t * s->n_heads + h) * v_width;
            make(s, r, t, h, context, &token);
            for (int i = 0; i < width; i++) {
                for (int c = 0; c < v_width; c++) old[c] += state[i * v_width + c] * token.remove[i];
            }
            for (int c = 0; c < v_width; c++) out[c] = 0;
            for (int i = 0; i < width; i++) {
                for (int c = 0; c < v_width; c++) {
                    double *x = state + i * v_width + c;
                    *x = token.decay[i] * *x - token.add[i] * old[c] + token.k[i] * token.v[c];
                    out[c] += *x * token.q[i];
                }
            }
        }
    }
    free(state);
}

// The same through the last value, the sum of the weights.
static void naive_normalised(const Shape *s, const Rows *r, NaiveToken make, const void *context, int width,
                             double *out) {
    int d = s->head_dim;
    int64_t rows = (int64_t)r->n_keys * s->n_heads;
    double *o = need(sizeof *o * (size_t)(rows * (d + 1)));
    naive_recurrence(s, r, make, context, width, d + 1, o);
    for (int64_t i = 0; i < rows; i++) {
        for (int c = 0; c < d; c++) out[i * d + c] = o[i * (d + 1) + c] / o[i * (d + 1) + d];
    }
    free(o);
}

static void set_token(const Shape *s, const Rows *r, int t, int head, double q_scale, Token *token) {
    for (int c = 0; c < s->head_dim; c++) {
        token->q[c] = (double)q_at(s, r, t, head)[c] * q_scale;
        token->k[c] = (double)kv_at(s, r->k, t, head)[c];
        token->v[c] = (double)kv_at(s, r->v, t, head)[c];
        token->decay[c] = 1;
    }
}

static double elu_1(double x) {
    return x > 0 ? x + 1 : exp(x);
}
static void elu_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    (void)context;
    set_token(s, r, t, head, 1, token);
    for (int c = 0; c < s->head_dim; c++) {
        token->q[c] = elu_1(token->q[c]);
        token->k[c] = elu_1(token->k[c]);
    }
    token->v[s->head_dim] = 1;
}
static void naive_linear(const Shape *s, const Rows *r, double *out) {
    naive_normalised(s, r, elu_token, NULL, s->head_dim, out);
}

// What the parallel form says: sums over all pairs, without a state.
typedef struct {
    double *q, *k; // features
} EluFeatures;

static double *elu_features(const float *x, int64_t n) {
    double *y = need(sizeof *y * (size_t)n);
    for (int64_t i = 0; i < n; i++) y[i] = elu_1((double)x[i]);
    return y;
}

static double elu_weight(const Shape *s, const Rows *r, int t, int j, int head, const void *context) {
    const EluFeatures *f = context;
    const double *q = f->q + (q_at(s, r, t, head) - r->q), *k = f->k + (kv_at(s, r->k, j, head) - r->k);
    double sum = 0;
    for (int c = 0; c < s->head_dim; c++) sum += q[c] * k[c];
    return log(sum);
}
static void naive_linear_parallel(const Shape *s, const Rows *r, double *out) {
    EluFeatures f = {elu_features(r->q, (int64_t)r->n_q * s->n_heads * s->head_dim),
                     elu_features(r->k, (int64_t)r->n_keys * s->n_kv_heads * s->head_dim)};
    naive_softmax(s, r, elu_weight, sees_past, &f, out);
    free(f.q);
    free(f.k);
}

// ---- random features

// [n_heads][width][head_dim], as linear.c draws them.
static float *performer_directions(const Shape *s, int width, bool orthogonal) {
    int d = s->head_dim;
    float *w = need_floats((int64_t)s->n_heads * width * d);
    uint64_t seed = s->seed;
    for (int h = 0; h < s->n_heads; h++) {
        double *rows = need(sizeof *rows * (size_t)(width * d));
        for (int i = 0; i < width; i++) {
            double *x = rows + i * d, length = 0;
            for (int c = 0; c < d; c++) x[c] = (double)random_normal(&seed);
            for (int j = orthogonal ? i / d * d : i; j < i; j++) {
                double along = 0;
                for (int c = 0; c < d; c++) along += x[c] * rows[j * d + c];
                for (int c = 0; c < d; c++) x[c] -= along * rows[j * d + c];
            }
            for (int c = 0; c < d; c++) length += x[c] * x[c];
            for (int c = 0; c < d; c++) x[c] /= orthogonal ? sqrt(length) : 1;
        }
        for (int i = 0; i < width; i++) {
            double square = 0;
            if (orthogonal) {
                for (int c = 0; c < d; c++) square += pow((double)random_normal(&seed), 2);
            }
            for (int c = 0; c < d; c++) {
                double x = rows[i * d + c] * (orthogonal ? sqrt(square) : 1) / pow(d, 0.25);
                w[((int64_t)h * width + i) * d + c] = (float)x;
            }
        }
        free(rows);
    }
    return w;
}

static double dot_row(const float *w, const double *x, int n) {
    double sum = 0;
    for (int c = 0; c < n; c++) sum += (double)w[c] * x[c];
    return sum;
}

// The features of a query are those without its own stabiliser: a factor of the whole row.
static void performer_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    Token x = {0};
    int d = s->head_dim, width = s->rank;
    double square = 0;
    set_token(s, r, t, head, 1, &x);
    *token = x;
    for (int c = 0; c < d; c++) square += x.k[c] * x.k[c];
    for (int i = 0; i < width; i++) {
        const float *w = (const float *)context + ((int64_t)head * width + i) * d;
        token->q[i] = exp(dot_row(w, x.q, d));
        token->k[i] = exp(dot_row(w, x.k, d) - square / (2 * sqrt(d)));
        token->decay[i] = 1;
    }
    token->v[d] = 1;
}
static void naive_performer_of(const Shape *s, const Rows *r, bool orthogonal, double *out) {
    float *w = performer_directions(s, s->rank, orthogonal);
    naive_normalised(s, r, performer_token, w, s->rank, out);
    free(w);
}
static void naive_performer(const Shape *s, const Rows *r, double *out) {
    naive_performer_of(s, r, true, out);
}

static void rfa_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    Token x = {0};
    int d = s->head_dim, half = s->rank / 2;
    double q = 0, k = 0, keep = sigmoid((double)gate_at(s, r, t, head)[0] + 4);
    set_token(s, r, t, head, 1, &x);
    *token = x;
    for (int c = 0; c < d; c++) {
        q += x.q[c] * x.q[c];
        k += x.k[c] * x.k[c];
        token->v[c] = (1 - keep) * x.v[c];
    }
    token->v[d] = 1 - keep;
    for (int i = 0; i < half; i++) {
        const float *w = (const float *)context + ((int64_t)head * half + i) * d;
        double at_q = dot_row(w, x.q, d) / sqrt(q), at_k = dot_row(w, x.k, d) / sqrt(k);
        token->q[i] = sin(at_q);
        token->q[half + i] = cos(at_q);
        token->k[i] = sin(at_k);
        token->k[half + i] = cos(at_k);
        token->decay[i] = token->decay[half + i] = keep;
    }
}
static void naive_rfa(const Shape *s, const Rows *r, double *out) {
    uint64_t seed = s->seed;
    float *w = drawn(&seed, (int64_t)s->n_heads * s->rank / 2 * s->head_dim, 1);
    naive_normalised(s, r, rfa_token, w, s->rank, out);
    free(w);
}

// Relative error of features of this width against softmax, over seeds, of the operator or of independent directions.
static double performer_error(int width, bool operator) {
    enum { N = 60, SEEDS = 60 };
    Shape s = {.n_heads = 1, .n_kv_heads = 1, .head_dim = 16, .n_max = N, .type = KV_DTYPE_F32, .rank = width};
    Inputs in;
    double want[N * 16], got[N * 16], square = 0;
    inputs_open(&in, &s, N, N, 3);
    for (int i = 0; i < N * 16; i++) { // scores small enough for the features' variance
        in.q[i] *= 0.4f;
        in.k[i] *= 0.4f;
    }
    Rows rows = inputs_all(&in);
    naive_softmax(&s, &rows, scaled_score, sees_past, NULL, want);
    for (int i = 0; i < SEEDS; i++) {
        s.seed = (uint64_t)i * 1000 + 1;
        if (operator) {
            run_mechanism(mechanism_find("performer"), &s, &in, 1, 0);
            widen(got, in.out, N * 16);
        } else naive_performer_of(&s, &rows, false, got);
        double error = 0, power = 0;
        for (int j = 0; j < N * 16; j++) {
            error += pow(got[j] - want[j], 2);
            power += want[j] * want[j];
        }
        square += error / power / SEEDS;
    }
    inputs_close(&in);
    return sqrt(square);
}

// Its error falls as 1 / sqrt(features); orthogonal directions are better than independent ones (arXiv:2009.14794,
// theorem 2 and figure 4).
static void performer_converges(void) {
    double few = performer_error(32, true), many = performer_error(256, true), other = performer_error(256, false);
    CHECK(few / many > 2.5 && few / many < 3.2, "32 features: %.3g, 256: %.3g; expected a factor near sqrt(8)", few,
          many);
    CHECK(many > 0 && many < 0.97 * other, "256 features: orthogonal %.3g, independent %.3g", many, other);
}

// ---- gates

static void retnet_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    (void)context;
    set_token(s, r, t, head, 1 / sqrt(s->head_dim), token);
    for (int c = 0; c < s->head_dim; c++) token->decay[c] = 1 - pow(2, -5 - head);
}
static void naive_retnet(const Shape *s, const Rows *r, double *out) {
    naive_recurrence(s, r, retnet_token, NULL, s->head_dim, s->head_dim, out);
}

static void gla_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    (void)context;
    set_token(s, r, t, head, 1 / sqrt(s->head_dim), token);
    for (int c = 0; c < s->head_dim; c++) token->decay[c] = pow(sigmoid((double)gate_at(s, r, t, head)[c]), 1.0 / 16);
}
static void naive_gla(const Shape *s, const Rows *r, double *out) {
    naive_recurrence(s, r, gla_token, NULL, s->head_dim, s->head_dim, out);
}

static double delta_beta(const Shape *s, const Rows *r, int t, int head) {
    return sigmoid((double)gate_at(s, r, t, head)[1]);
}
static double delta_decay(const Shape *s, const Rows *r, int t, int head) {
    return exp(-(1.0 + head) * softplus((double)gate_at(s, r, t, head)[0] - 4));
}
// S = a (I - b k k^T) S + b k v^T; a = 1 where `gated` is NULL.
static void delta_token(const Shape *s, const Rows *r, int t, int head, const void *gated, Token *token) {
    double q = 1e-6, k = 1e-6, beta = delta_beta(s, r, t, head), a = gated ? delta_decay(s, r, t, head) : 1;
    set_token(s, r, t, head, 1, token);
    for (int c = 0; c < s->head_dim; c++) {
        q += token->q[c] * token->q[c];
        k += token->k[c] * token->k[c];
    }
    for (int c = 0; c < s->head_dim; c++) {
        token->q[c] /= sqrt(q * s->head_dim);
        token->decay[c] = a;
        token->remove[c] = token->k[c] / sqrt(k);
        token->add[c] = a * beta * token->remove[c];
        token->k[c] = beta * token->remove[c];
    }
}
static void naive_deltanet(const Shape *s, const Rows *r, double *out) {
    naive_recurrence(s, r, delta_token, NULL, s->head_dim, s->head_dim, out);
}
static void naive_gated_deltanet(const Shape *s, const Rows *r, double *out) {
    naive_recurrence(s, r, delta_token, "gated", s->head_dim, s->head_dim, out);
}

// The parallel forms of what fades, from all pairs: o_t = sum over j of (q_t . the product of the decays between j and
// t . k_j) u_j, where u is v, or under the delta rule the solution of (I + A) u = b v (arXiv:2412.06464, section 3.3).
static void parallel_form(const Shape *s, const Rows *r, NaiveToken make, const void *context, double *out) {
    int n = r->n_keys, d = s->head_dim;
    Token *tokens = need(sizeof *tokens * (size_t)n);
    double *u = need(sizeof *u * (size_t)(n * d));
    for (int h = 0; h < s->n_heads; h++) {
        for (int t = 0; t < n; t++) {
            double *o = out + ((int64_t)t * s->n_heads + h) * d, since[MAX_WIDTH];
            Token *token = memset(&tokens[t], 0, sizeof *tokens);
            make(s, r, t, h, context, token);
            // k v^T - add (S^T remove)^T = key u^T with key the direction of k under the delta rule
            double beta = 1;
            bool delta = token->remove[0] != 0;
            for (int c = 0; c < d; c++) {
                if (delta) beta = token->k[c] / token->remove[c];
                u[t * d + c] = beta * token->v[c];
                o[c] = 0;
                since[c] = 1;
            }
            for (int c = 0; delta && c < d; c++) token->k[c] = token->remove[c];
            for (int j = t; j >= 0; j--) {
                double at_key = 0;
                for (int i = 0; i < d; i++) at_key += token->remove[i] * since[i] * tokens[j].k[i];
                for (int c = 0; c < d && j < t; c++) u[t * d + c] -= beta * at_key * u[j * d + c];
                for (int i = 0; i < d; i++) since[i] *= tokens[j].decay[i];
            }
            for (int i = 0; i < d; i++) since[i] = 1;
            for (int j = t; j >= 0; j--) {
                double at_query = 0;
                for (int i = 0; i < d; i++) at_query += token->q[i] * since[i] * tokens[j].k[i];
                for (int c = 0; c < d; c++) o[c] += at_query * u[j * d + c];
                for (int i = 0; i < d; i++) since[i] *= tokens[j].decay[i];
            }
        }
    }
    free(tokens);
    free(u);
}

static void forms_agree(void) {
    enum { N = 70 };
    static const struct {
        const char *name;
        Naive recurrent;
        NaiveToken token;
        const void *context;
    } forms[] = {{"retnet", naive_retnet, retnet_token, NULL},
                 {"gla", naive_gla, gla_token, NULL},
                 {"deltanet", naive_deltanet, delta_token, NULL},
                 {"gated-deltanet", naive_gated_deltanet, delta_token, "gated"}};
    Shape s = {.n_heads = 2, .n_kv_heads = 2, .head_dim = 10, .n_max = N, .type = KV_DTYPE_F32, .seed = 5};
    Inputs in;
    inputs_open(&in, &s, N, N, 8);
    Rows rows = inputs_all(&in);
    double parallel[N * 20], recurrent[N * 20], most;
    for (int f = 0; f < N_OF(forms); f++) {
        parallel_form(&s, &rows, forms[f].token, forms[f].context, parallel);
        forms[f].recurrent(&s, &rows, recurrent);
        most = 0;
        for (int i = 0; i < N * 20; i++) most = fmax(most, fabs(parallel[i] - recurrent[i]));
        CHECK(most < 1e-12, "%s: the parallel and the recurrent form differ by %g", forms[f].name, most);
        run_mechanism(mechanism_find(forms[f].name), &s, &in, 2, 0);
        CHECK(relative_error(in.out, parallel, N * 20) < 1e-5, "%s: the chunked form differs by %g", forms[f].name,
              relative_error(in.out, parallel, N * 20));
    }
    inputs_close(&in);
}

// ---- Linformer

static void naive_linformer(const Shape *s, const Rows *r, double *out) {
    uint64_t seed = s->seed;
    int width = s->n_kv_heads * s->head_dim;
    float *e = drawn(&seed, (int64_t)s->rank * s->n_max, 1 / sqrt((double)s->n_max));
    float *k = need_floats((int64_t)s->rank * width), *v = need_floats((int64_t)s->rank * width);
    for (int i = 0; i < s->rank; i++) {
        for (int c = 0; c < width; c++) {
            double key = 0, value = 0;
            for (int t = 0; t < r->n_keys; t++) {
                double by = (double)e[(int64_t)i * s->n_max + t];
                key += by * (double)r->k[(int64_t)t * width + c];
                value += by * (double)r->v[(int64_t)t * width + c];
            }
            k[i * width + c] = (float)key;
            v[i * width + c] = (float)value;
        }
    }
    Rows low = *r;
    low.n_keys = s->rank;
    low.k = k;
    low.v = v;
    naive_softmax(s, &low, scaled_score, sees_all, NULL, out);
    free(e);
    free(k);
    free(v);
}

// ---- Mamba-2, RWKV-7, the short convolution

static void mamba_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    (void)context;
    double step = softplus((double)gate_at(s, r, t, head)[0] - 4);
    set_token(s, r, t, head, 1, token);
    for (int c = 0; c < s->head_dim; c++) {
        token->q[c] = (double)q_at(s, r, t, 0)[c];
        token->k[c] = (double)kv_at(s, r->k, t, 0)[c];
        token->v[c] *= step;
        token->decay[c] = exp(-step * (1 + head));
    }
}
static void naive_mamba(const Shape *s, const Rows *r, double *out) {
    int d = s->head_dim;
    naive_recurrence(s, r, mamba_token, NULL, d, d, out);
    for (int i = 0; i < r->n_keys * s->n_heads; i++) {
        for (int c = 0; c < d; c++)
            out[(int64_t)i * d + c] += (double)kv_at(s, r->v, i / s->n_heads, i % s->n_heads)[c];
    }
}

static void rwkv_token(const Shape *s, const Rows *r, int t, int head, const void *context, Token *token) {
    const float *w = (const float *)context + (int64_t)head * s->head_dim * s->head_dim, *g = gate_at(s, r, t, head);
    double square = 0, gate[MAX_WIDTH];
    set_token(s, r, t, head, 1, token);
    widen(gate, g, s->head_dim);
    for (int c = 0; c < s->head_dim; c++) square += token->k[c] * token->k[c];
    for (int c = 0; c < s->head_dim; c++) {
        double a = sigmoid(dot_row(w + c * s->head_dim, gate, s->head_dim));
        token->remove[c] = token->k[c] / sqrt(square);
        token->add[c] = a * token->remove[c];
        token->k[c] *= a;
        token->decay[c] = exp(-0.6065306597 * sigmoid(gate[c]));
    }
}
static void naive_rwkv(const Shape *s, const Rows *r, double *out) {
    int d = s->head_dim;
    uint64_t seed = s->seed;
    float *w = drawn(&seed, (int64_t)s->n_heads * d * (d + 1), 1 / sqrt(d));
    naive_recurrence(s, r, rwkv_token, w, d, d, out);
    for (int i = 0; i < r->n_keys * s->n_heads; i++) {
        Token token = {0};
        double sum = 0;
        int head = i % s->n_heads;
        rwkv_token(s, r, i / s->n_heads, head, w, &token);
        for (int c = 0; c < d; c++) {
            sum += token.q[c] * token.k[c] * (double)w[(int64_t)s->n_heads * d * d + head * d + c];
        }
        for (int c = 0; c < d; c++) out[(int64_t)i * d + c] += sum * token.v[c];
    }
    free(w);
}

static void naive_short_conv(const Shape *s, const Rows *r, double *out) {
    uint64_t seed = s->seed;
    int d = s->head_dim, width = s->n_heads * d;
    float *taps = drawn(&seed, 3 * width, 1 / sqrt(3));
    for (int i = 0; i < r->n_keys * width; i++) {
        int t = i / width, head = i % width / d, c = i % d;
        out[i] = 0;
        for (int j = t < 2 ? 0 : t - 2; j <= t; j++) {
            double x = (double)kv_at(s, r->k, j, head)[c] * (double)kv_at(s, r->v, j, head)[c];
            out[i] += (double)taps[(j - t + 2) * width + i % width] * x;
        }
        out[i] *= (double)r->q[i];
    }
    free(taps);
}

// ---- Hyena, by sums

// x of a channel through its short convolution, at row t; taps of one of the three.
static double shifted(const float *x, int64_t ld, const float *taps, int64_t taps_ld, int t) {
    double sum = 0;
    for (int j = t < 2 ? 0 : t - 2; j <= t; j++) sum += (double)taps[(j - t + 2) * taps_ld] * (double)x[j * ld];
    return sum;
}

static void naive_hyena(const Shape *s, const Rows *r, double *out) {
    enum { HIDDEN = 16, INPUTS = 5, BEFORE = HIDDEN * INPUTS + HIDDEN };
    uint64_t seed = s->seed;
    int d = s->head_dim, width = s->n_heads * d, narrow = s->n_kv_heads * d, n = r->n_keys;
    float *w1 = drawn(&seed, BEFORE, 1), *w2 = drawn(&seed, width * HIDDEN, 0.25),
          *taps = drawn(&seed, 9 * width, 1 / sqrt(3));
    double *h = need(sizeof *h * (size_t)n), *z = need(sizeof *z * (size_t)n);
    for (int i = 0; i < width; i++) {
        int kv = i / d / (s->n_heads / s->n_kv_heads) * d + i % d;
        for (int t = 0; t < n; t++) {
            double at = (double)t / s->n_max, turn = 2 * M_PI * at, sum = 0;
            double input[INPUTS] = {at, cos(turn), sin(turn), cos(2 * turn), sin(2 * turn)};
            for (int j = 0; j < HIDDEN; j++) {
                sum += (double)w2[i * HIDDEN + j] *
                       sin((double)w1[HIDDEN * INPUTS + j] + dot_row(w1 + j * INPUTS, input, INPUTS));
            }
            h[t] = sum * exp(-(2 + 4 * (i % 8)) * at) / sqrt(s->n_max) + (t == 0);
            z[t] = shifted(r->k + kv, narrow, taps + width + i, 3 * width, t) *
                   shifted(r->v + kv, narrow, taps + 2 * width + i, 3 * width, t);
            out[(int64_t)t * width + i] = 0;
            for (int j = 0; j <= t; j++) out[(int64_t)t * width + i] += h[t - j] * z[j];
            out[(int64_t)t * width + i] *= shifted(r->q + i, width, taps + i, 3 * width, t);
        }
    }
    free(w1);
    free(w2);
    free(taps);
    free(h);
    free(z);
}

// Transforms of more than the small cases' sizes, behind rows that are there already.
static void hyena_transforms(void) {
    enum { N = 3000, D = 9 };
    Shape s = {.n_heads = 1, .n_kv_heads = 1, .head_dim = D, .n_max = N, .seed = 4};
    Inputs in;
    double *want = need(sizeof *want * N * D);
    inputs_open(&in, &s, N, N, 2);
    Rows rows = inputs_all(&in);
    naive_hyena(&s, &rows, want);
    for (int step = 0; step <= 1700; step += 850) {
        run_mechanism(mechanism_find("hyena"), &s, &in, 2, step);
        double error = relative_error(in.out, want, N * D);
        CHECK(error < 1e-5, "%d rows in steps of %d: relative error %.3g", N, step, error);
    }
    free(want);
    inputs_close(&in);
}

// ---- hybrids

// Heads first..first + count - 1 by `naive`, with keys and values of their own.
static void naive_heads(const Shape *s, const Rows *r, Naive naive, int first, int count, double *out) {
    if (!count) return;
    int d = s->head_dim, n = r->n_keys;
    Shape part = *s;
    Inputs in;
    part.n_heads = part.n_kv_heads = count;
    inputs_open(&in, &part, n, n, 0);
    double *o = need(sizeof *o * (size_t)(n * count * d));
    for (int i = 0; i < n * count; i++) {
        int t = i / count, h = first + i % count;
        int64_t at = (int64_t)i * d;
        memcpy(in.q + at, q_at(s, r, t, h), sizeof *in.q * (size_t)d);
        memcpy(in.k + at, kv_at(s, r->k, t, h), sizeof *in.q * (size_t)d);
        memcpy(in.v + at, kv_at(s, r->v, t, h), sizeof *in.q * (size_t)d);
        memcpy(in.gates + at, gate_at(s, r, t, h), sizeof *in.q * (size_t)d);
    }
    Rows rows = inputs_all(&in);
    naive(&part, &rows, o);
    for (int i = 0; i < n * count * d; i++) {
        out[((int64_t)(i / d / count) * s->n_heads + first + i / d % count) * d + i % d] = o[i];
    }
    free(o);
    inputs_close(&in);
}

static void naive_causal(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, scaled_score, sees_past, NULL, out);
}
static void naive_hybrid(const Shape *s, const Rows *r, Naive partner, double *out) {
    int attending = s->n_heads == 1 ? 0 : 1; // of at most 5 heads
    naive_heads(s, r, naive_causal, 0, attending, out);
    naive_heads(s, r, partner, attending, s->n_heads - attending, out);
}
static void naive_hybrid_mamba(const Shape *s, const Rows *r, double *out) {
    naive_hybrid(s, r, naive_mamba, out);
}
static void naive_hybrid_rwkv(const Shape *s, const Rows *r, double *out) {
    naive_hybrid(s, r, naive_rwkv, out);
}
static void naive_hybrid_hyena(const Shape *s, const Rows *r, double *out) {
    naive_hybrid(s, r, naive_hyena, out);
}
static void naive_hybrid_conv(const Shape *s, const Rows *r, double *out) {
    naive_hybrid(s, r, naive_short_conv, out);
}
static void naive_hybrid_delta(const Shape *s, const Rows *r, double *out) {
    naive_hybrid(s, r, naive_gated_deltanet, out);
}

// ---- experts

static void naive_moe(const Shape *s, const Rows *r, double *out) {
    enum { EXPERTS = 8, MOST = 128 };
    uint64_t seed = s->seed;
    int width = s->n_heads * s->head_dim;
    int64_t square = (int64_t)width * width;
    float *w = drawn(&seed, EXPERTS * (width + 3 * square), 1 / sqrt(width));
    naive_causal(s, r, out);
    for (int t = 0; t < r->n_q; t++) {
        double x[MOST], hidden[MOST], scores[EXPERTS], *o = out + (int64_t)t * width;
        int first = 0, second = -1;
        memcpy(x, o, sizeof *x * (size_t)width);
        for (int e = 0; e < EXPERTS; e++) {
            scores[e] = dot_row(w + e * width, x, width);
            if (scores[e] > scores[first]) first = e;
        }
        for (int e = 0; e < EXPERTS; e++) {
            if (e != first && (second < 0 || scores[e] > scores[second])) second = e;
        }
        for (int pick = 0; pick < 2; pick++) {
            int e = pick ? second : first;
            double by = 1 / (1 + exp(scores[pick ? first : second] - scores[e]));
            const float *gate = w + EXPERTS * width + 3 * e * square, *up = gate + square, *down = up + square;
            for (int i = 0; i < width; i++) {
                double g = dot_row(gate + (int64_t)i * width, x, width);
                hidden[i] = g * sigmoid(g) * dot_row(up + (int64_t)i * width, x, width);
            }
            for (int i = 0; i < width; i++) o[i] += by * dot_row(down + (int64_t)i * width, hidden, width);
        }
    }
    free(w);
}

// ---- memory

static double mean_score(const Shape *s, const Rows *r, int t, int head, int block) {
    double sum = 0;
    for (int j = block * s->block; j < (block + 1) * s->block; j++) {
        sum += dot_double(q_at(s, r, t, head), kv_at(s, r->k, j, head), s->head_dim);
    }
    return sum;
}

// Marks the `most` largest of n scores that are not -INFINITY.
static int count_better(const double *scores, int n, double than) {
    int better = 0;
    for (int i = 0; i < n; i++) better += scores[i] > than;
    return better;
}
static void mark_best(const double *scores, int n, int most, bool *marks) {
    for (int i = 0; i < n; i++) marks[i] = scores[i] > -INFINITY && count_better(scores, n, scores[i]) < most;
}

// Softmax over what each row of each head sees, one row at a time: a row's choice is its own.
static void naive_lookup(const Shape *s, const Rows *r, int reach, int blocks, int keys, double *out) {
    bool *taken = need((size_t)r->n_keys + 1), *kept = need((size_t)r->n_keys + 1);
    double *scores = need(sizeof *scores * (size_t)(r->n_keys + 1));
    for (int i = 0; i < r->n_q * s->n_heads; i++) {
        int t = i / s->n_heads, head = i % s->n_heads, recent = t < reach ? 0 : (t - reach + 1) / s->block * s->block;
        for (int b = 0; b < recent / s->block; b++) scores[b] = mean_score(s, r, t, head, b);
        mark_best(scores, recent / s->block, blocks, taken);
        for (int j = 0; j < recent; j++) {
            scores[j] = taken[j / s->block] ? scaled_score(s, r, t, j, head, NULL) : -INFINITY;
        }
        mark_best(scores, recent, keys ? keys : recent, kept);
        double sum = 0, *o = out + (int64_t)i * s->head_dim;
        for (int c = 0; c < s->head_dim; c++) o[c] = 0;
        for (int j = 0; j <= t; j++) {
            if (j < recent && !kept[j]) continue;
            double w = exp(scaled_score(s, r, t, j, head, NULL));
            sum += w;
            for (int c = 0; c < s->head_dim; c++) o[c] += w * (double)kv_at(s, r->v, j, head)[c];
        }
        for (int c = 0; c < s->head_dim; c++) o[c] /= sum;
    }
    free(taken);
    free(kept);
    free(scores);
}
static void naive_retrieval(const Shape *s, const Rows *r, double *out) {
    naive_lookup(s, r, s->window, 4 * ((s->rank + s->block - 1) / s->block), s->rank, out);
}
static void naive_moba(const Shape *s, const Rows *r, double *out) {
    naive_lookup(s, r, 1, (s->rank + s->block - 1) / s->block, 0, out);
}

// Runs a mechanism: its error against dense attention, `exact`.
static double error_of(const char *name, const Shape *s, Inputs *in, const float *exact) {
    run_mechanism(mechanism_find(name), s, in, 2, 0);
    return floats_error(in->out, exact, (int64_t)in->n_q * s->n_heads * s->head_dim);
}

// With as many keys as there are, both are dense attention, whatever the cache stores; with few, retrieval over words
// finds what a window loses.
static void retrieval_of_all(void) {
    enum { N = 700, D = 31, HEADS = 2 };
    static const char *const names[] = {"retrieval", "moba"};
    static const struct {
        KvDType type;
        double most;
    } cases[] = {{KV_DTYPE_F32, 1e-6}, {KV_DTYPE_BF16, 5e-3}, {KV_DTYPE_Q8, 2e-2}};
    char err[512];
    Compute c;
    Inputs in;
    Shape s = {.n_heads = HEADS, .n_kv_heads = 1, .head_dim = D, .n_max = N, .window = 20, .block = 32};
    NEED(!compute_open(&c, 1, err, sizeof err), "%s", err);
    s.type = KV_DTYPE_F32;
    inputs_open(&in, &s, N, N, 11);
    inputs_of_words(&in, 100, 3);
    float *exact = need_floats(N * HEADS * D);
    inputs_attend(&in, &(AttnMask){.causal = true}, 0, exact, &c);
    for (int i = 0; i < N_OF(cases); i++) {
        s.type = cases[i].type;
        s.rank = 96;
        double window = error_of("window", &s, &in, exact);
        for (int n = 0; n < N_OF(names); n++) {
            s.rank = N;
            double all = error_of(names[n], &s, &in, exact);
            CHECK(all < cases[i].most, "%s, %s: with k = n %.3g from dense attention, at most %.3g", names[n],
                  kv_dtype_name(s.type), all, cases[i].most);
            s.rank = 96;
            double some = error_of(names[n], &s, &in, exact);
            CHECK(some > all && some < 0.7 * window, "%s: 96 keys %.3g from dense, a window %.3g", names[n], some,
                  window);
        }
    }
    free(exact);
    inputs_close(&in);
    Shape odd = {.n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .n_max = 9, .window = 4, .block = 24, .rank = 8};
    Operator op;
    CHECK(operator_open(&op, mechanism_find("retrieval"), &odd, &c, err, sizeof err) && strstr(err, "24"),
          "blocks of 24 keys: expected a refusal, found %s", err);
    compute_close(&c);
}

static void naive_infini(const Shape *s, const Rows *r, double *out) {
    int d = s->head_dim, segment = s->window, n = r->n_keys;
    uint64_t seed = s->seed;
    float *gates = drawn(&seed, s->n_heads, 1);
    double *m = need(sizeof *m * (size_t)(2 * d * (d + 1))), *old = m + d * (d + 1); // M and z, before the segment
    for (int h = 0; h < s->n_heads; h++) {
        double gate = sigmoid((double)gates[h]);
        memset(m, 0, sizeof *m * (size_t)(2 * d * (d + 1)));
        for (int t = 0; t < n; t++) {
            double *o = out + ((int64_t)t * s->n_heads + h) * d, sum = 0, norm = 0, held[MAX_WIDTH] = {0};
            if (t % segment == 0) memcpy(old, m, sizeof *m * (size_t)(d * (d + 1)));
            for (int c = 0; c < d; c++) o[c] = 0;
            for (int j = t / segment * segment; j <= t; j++) {
                double w = exp(scaled_score(s, r, t, j, h, NULL));
                sum += w;
                for (int c = 0; c < d; c++) o[c] += w * (double)kv_at(s, r->v, j, h)[c];
            }
            for (int i = 0; i < d; i++) {
                double q = elu_1((double)q_at(s, r, t, h)[i]);
                norm += q * old[i * (d + 1) + d];
                for (int c = 0; c < d; c++) held[c] += q * old[i * (d + 1) + c];
            }
            for (int c = 0; c < d; c++) o[c] = (1 - gate) * o[c] / sum + (norm > 0 ? gate * held[c] / norm : 0);
            memset(held, 0, sizeof held);
            norm = 0;
            for (int i = 0; i < d; i++) {
                double k = elu_1((double)kv_at(s, r->k, t, h)[i]);
                norm += k * old[i * (d + 1) + d];
                for (int c = 0; c < d; c++) held[c] += k * old[i * (d + 1) + c];
            }
            for (int i = 0; i < d; i++) {
                double k = elu_1((double)kv_at(s, r->k, t, h)[i]);
                for (int c = 0; c < d; c++) {
                    m[i * (d + 1) + c] += k * ((double)kv_at(s, r->v, t, h)[c] - (norm > 0 ? held[c] / norm : 0));
                }
                m[i * (d + 1) + d] += k;
            }
        }
    }
    free(gates);
    free(m);
}

// ---- graphs and pairs

// Each node's list, weighed by `context`'s halves of scores (NULL: by degrees).
static void naive_graph(const Shape *s, const Rows *r, const float *a, double *out) {
    int d = s->head_dim;
    Graph g = graph_draw(r->n_keys, s->seed);
    for (int i = 0; i < r->n_keys * s->n_heads; i++) {
        int t = i / s->n_heads, h = i % s->n_heads;
        double sum = 0, *o = out + (int64_t)i * d, degree = g.start[t + 1] - g.start[t];
        for (int c = 0; c < d; c++) o[c] = 0;
        for (int e = g.start[t]; e < g.start[t + 1]; e++) {
            int j = g.to[e];
            double w = 1 / sqrt(degree * (g.start[j + 1] - g.start[j]));
            if (a) {
                double score = dot_double(a + h * d, q_at(s, r, t, h), d) +
                               dot_double(a + (s->n_heads + h) * d, kv_at(s, r->k, j, h), d);
                w = exp(score > 0 ? score : score / 5);
            }
            sum += w;
            for (int c = 0; c < d; c++) o[c] += w * (double)kv_at(s, r->v, j, h)[c];
        }
        for (int c = 0; a && c < d; c++) o[c] /= sum;
    }
    graph_free(&g);
}
static void naive_gat(const Shape *s, const Rows *r, double *out) {
    uint64_t seed = s->seed;
    float *a = drawn(&seed, 2LL * s->n_heads * s->head_dim, 1 / sqrt(s->head_dim));
    naive_graph(s, r, a, out);
    free(a);
}
static void naive_gcn(const Shape *s, const Rows *r, double *out) {
    naive_graph(s, r, NULL, out);
}

static double biased_score(const Shape *s, const Rows *r, int t, int j, int head, const void *context) {
    (void)context;
    uint64_t pair = ((uint64_t)head * (uint64_t)s->n_max + (uint64_t)t) * (uint64_t)s->n_max + (uint64_t)j;
    uint64_t state = s->seed + pair * 0x9e6c63d0876a9a35u;
    return scaled_score(s, r, t, j, head, NULL) + 4 * (double)random_open(&state) - 2;
}
static void naive_pairs(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, biased_score, sees_all, NULL, out);
    for (int64_t i = 0; i < (int64_t)r->n_q * s->n_heads * s->head_dim; i++) out[i] *= sigmoid((double)r->gates[i]);
}

static void no_list_twice(void) {
    for (int n = 1; n < 300; n = n * 2 + 3) {
        Graph g = graph_draw(n, (uint64_t)n);
        for (int i = 0; i < n; i++) {
            CHECK(g.to[g.start[i]] == i, "%d nodes: node %d does not begin with itself", n, i);
            for (int e = g.start[i]; e < g.start[i + 1]; e++) {
                for (int f = g.start[i]; f < e; f++) CHECK(g.to[e] != g.to[f], "node %d sees %d twice", i, g.to[e]);
            }
        }
        CHECK(g.start[n] <= 9 * n && (n < 9 || g.start[n] > 7 * n), "%d nodes, %d edges", n, g.start[n]);
        graph_free(&g);
    }
}

// Row order[i] of `from` is row i of `to`.
static void reorder(float *to, const float *from, const int *order, int n, int width) {
    for (int i = 0; i < n; i++) memcpy(to + i * width, from + order[i] * width, sizeof *to * (size_t)width);
}

// Attention without positions does not know an order: permuted rows, or nodes with their edges, give permuted rows. A
// node without neighbours gets zeros.
static void permutation_equivariance(void) {
    enum { N = 60, HEADS = 2, D = 8, WIDTH = HEADS * D };
    char err[512];
    int order[N], place[N];
    uint64_t seed = 5;
    Shape s = {.n_heads = HEADS, .n_kv_heads = HEADS, .head_dim = D, .n_max = N, .seed = 3};
    Compute c;
    Inputs a, b;
    s.type = KV_DTYPE_F32;
    NEED(!compute_open(&c, 2, err, sizeof err), "%s", err);
    inputs_open(&a, &s, N, N, 8);
    inputs_open(&b, &s, N, N, 9);
    for (int i = 0; i < N; i++) order[i] = i;
    for (int i = N - 1; i > 0; i--) {
        int j = (int)(random_bits(&seed) % (uint64_t)(i + 1)), was = order[i];
        order[i] = order[j];
        order[j] = was;
    }
    for (int i = 0; i < N; i++) place[order[i]] = i;
    reorder(b.q, a.q, order, N, WIDTH);
    reorder(b.k, a.k, order, N, WIDTH);
    reorder(b.v, a.v, order, N, WIDTH);
    float want[N * WIDTH];
    static const char *const names[] = {"bidirectional", "causal"};
    for (int i = 0; i < 2; i++) {
        run_mechanism(mechanism_find(names[i]), &s, &a, 1, 0);
        run_mechanism(mechanism_find(names[i]), &s, &b, 1, 0);
        reorder(want, a.out, order, N, WIDTH);
        double error = sqrt(nmse_f32(b.out, want, N * WIDTH));
        CHECK(i ? error > 0.1 : error < 1e-6, "%s: permuted rows are %.3g apart", names[i], error);
    }
    Graph g = graph_draw(N, 4), moved = graph_draw(N, 4);
    for (int i = N / 2 + 1; i <= N; i++) g.start[i] -= g.start[N / 2 + 1] - g.start[N / 2]; // node N / 2 has none
    for (int i = 0, e = 0; i < N; i++) {
        moved.start[i] = e;
        for (int f = g.start[order[i]]; f < g.start[order[i] + 1]; f++) moved.to[e++] = place[g.to[f]];
        moved.start[i + 1] = e;
    }
    Operator op = {.mechanism = mechanism_find("gat"), .compute = &c, .shape = s};
    Soft soft;
    graph_reserve(&soft, &op, HEADS, D);
    graph_attend(&op, &soft, &g, a.q, a.k, a.v, a.out); // the first N rows of heads are halves of scores
    reorder(want, a.out, order, N, WIDTH);
    reorder(b.q, a.q, order, N, HEADS);
    reorder(b.k, a.k, order, N, HEADS);
    graph_attend(&op, &soft, &moved, b.q, b.k, b.v, b.out);
    double error = sqrt(nmse_f32(b.out, want, N * WIDTH));
    CHECK(error < 1e-6, "GAT: permuted nodes are %.3g apart", error);
    for (int i = 0; i < WIDTH; i++) CHECK(a.out[N / 2 * WIDTH + i] == 0, "a node without neighbours: not zero");
    operator_close(&op);
    graph_free(&g);
    graph_free(&moved);
    inputs_close(&a);
    inputs_close(&b);
    compute_close(&c);
}

// ---- vision

static void naive_gates(const Shape *s, const Rows *r, bool places, double *out) {
    int n = r->n_keys, channels = s->n_kv_heads * s->head_dim, hidden = channels / 16 > 1 ? channels / 16 : 1;
    int columns = 1;
    while (columns * columns < n) columns++;
    uint64_t seed = s->seed;
    float *w1 = drawn(&seed, channels * hidden, 1 / sqrt(channels)),
          *w2 = drawn(&seed, channels * hidden, 1 / sqrt(hidden)), *taps = drawn(&seed, 2 * 49, 1.0 / 7);
    double *x = need(sizeof *x * (size_t)(n * channels)), *gate = need(sizeof *gate * (size_t)channels);
    for (int c = 0; c < channels; c++) gate[c] = 0;
    for (int kind = 0; kind < 1 + places; kind++) {
        for (int i = 0; i < hidden; i++) {
            double sum = 0;
            for (int c = 0; c < channels; c++) {
                double mean = 0, most = -INFINITY;
                for (int t = 0; t < n; t++) {
                    mean += (double)r->v[t * channels + c] / n;
                    most = fmax(most, (double)r->v[t * channels + c]);
                }
                sum += (double)w1[i * channels + c] * (kind ? most : mean);
            }
            for (int c = 0; c < channels; c++) gate[c] += (double)w2[c * hidden + i] * fmax(sum, 0);
        }
    }
    for (int i = 0; i < n * channels; i++) x[i] = (double)r->v[i] * sigmoid(gate[i % channels]);
    for (int t = 0; t < n; t++) {
        double sum = 0;
        for (int y = 0; places && y < (n + columns - 1) / columns; y++) {
            for (int at = y * columns; at < n && at < (y + 1) * columns; at++) {
                int dy = y - t / columns + 3, dx = at % columns - t % columns + 3;
                double mean = 0, most = -INFINITY;
                for (int c = 0; c < channels; c++) {
                    mean += x[at * channels + c] / channels;
                    most = fmax(most, x[at * channels + c]);
                }
                if (dy < 0 || dy > 6 || dx < 0 || dx > 6) continue;
                sum += (double)taps[dy * 7 + dx] * mean + (double)taps[49 + dy * 7 + dx] * most;
            }
        }
        for (int i = 0; i < s->n_heads * s->head_dim; i++) {
            int c = i / s->head_dim / (s->n_heads / s->n_kv_heads) * s->head_dim + i % s->head_dim;
            out[t * s->n_heads * s->head_dim + i] = x[t * channels + c] * (places ? sigmoid(sum) : 1);
        }
    }
    free(w1);
    free(w2);
    free(taps);
    free(x);
    free(gate);
}
static void naive_se(const Shape *s, const Rows *r, double *out) {
    naive_gates(s, r, false, out);
}
static void naive_cbam(const Shape *s, const Rows *r, double *out) {
    naive_gates(s, r, true, out);
}

static bool sees_picture(const Shape *s, int t, int j, const void *n_keys) {
    int last = (*(const int *)n_keys - 1) / s->block;
    return j / s->block == (t / s->block < last ? t / s->block : last);
}
static void naive_image_text(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, scaled_score, sees_picture, &r->n_keys, out);
}
static void naive_whole(const Shape *s, const Rows *r, double *out) {
    naive_softmax(s, r, scaled_score, sees_all, NULL, out);
}

static const Subject subjects[] = {{"linear", naive_linear, 1e-5, false},
                                   {"linear", naive_linear_parallel, 1e-5, false},
                                   {"linear-parallel", naive_linear_parallel, 1e-5, false},
                                   {"linear-recurrent", naive_linear, 1e-5, false},
                                   {"performer", naive_performer, 1e-5, false},
                                   {"rfa", naive_rfa, 1e-4, false},
                                   {"linformer", naive_linformer, 1e-5, false},
                                   {"retnet", naive_retnet, 1e-5, false},
                                   {"retnet-parallel", naive_retnet, 1e-5, false},
                                   {"retnet-recurrent", naive_retnet, 1e-5, false},
                                   {"gla", naive_gla, 1e-5, false},
                                   {"deltanet", naive_deltanet, 1e-5, false},
                                   {"gated-deltanet", naive_gated_deltanet, 1e-5, false},
                                   {"retrieval", naive_retrieval, 1e-5, false},
                                   {"moba", naive_moba, 1e-5, false},
                                   {"infini", naive_infini, 1e-5, false},
                                   {"mamba-2", naive_mamba, 1e-5, false},
                                   {"rwkv-7", naive_rwkv, 1e-5, false},
                                   {"short-conv", naive_short_conv, 1e-5, false},
                                   {"hyena", naive_hyena, 1e-5, false},
                                   {"hybrid-mamba-2", naive_hybrid_mamba, 1e-5, false},
                                   {"hybrid-rwkv-7", naive_hybrid_rwkv, 1e-5, false},
                                   {"hybrid-hyena", naive_hybrid_hyena, 1e-5, false},
                                   {"hybrid-short-conv", naive_hybrid_conv, 1e-5, false},
                                   {"hybrid-deltanet", naive_hybrid_delta, 1e-5, false},
                                   {"moe", naive_moe, 1e-5, false},
                                   {"se", naive_se, 1e-5, false},
                                   {"cbam", naive_cbam, 1e-5, false},
                                   {"vit", naive_whole, 1e-5, false},
                                   {"image-text", naive_image_text, 1e-5, false},
                                   {"gat", naive_gat, 1e-5, false},
                                   {"gcn", naive_gcn, 1e-5, false},
                                   {"pair-bias", naive_pairs, 1e-5, false}};

int main(void) {
    for (int i = 0; i < N_OF(subjects); i++) RUN_AS(subjects[i].name, check_subject(&subjects[i]));
    RUN(performer_converges);
    RUN(forms_agree);
    RUN(hyena_transforms);
    RUN(retrieval_of_all);
    RUN(no_list_twice);
    RUN(permutation_equivariance);
    return test_report();
}
