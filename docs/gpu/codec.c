/* Lossless code for 48x48 grey faces: a small network predicts each pixel from those before it, as a mixture of
 * logistic distributions, and an arithmetic coder writes its eight bits by those probabilities.
 *
 * Encoder and decoder must compute the same floating-point numbers on any x86-64 machine, so that only + - * / and
 * conversions are used, in a fixed order (no libm, no fused multiply-add: -ffp-contract=off, no -ffast-math).
 * pack.py trains the network, compiles this file and calls code_images from one thread per chunk of images.
 */
#include <stdint.h>
#include <string.h>

#define SIDE 48
#define REACH 4 /* pixels that the network sees to the left, to the right and above */
#define WIDTH (SIDE + 2 * REACH)
#define NEAR 12 /* nearest neighbours, whose deviation is the scale */
#define NEIGHBOURS 40
#define INPUTS (NEIGHBOURS + 5)
#define HIDDEN1 64
#define HIDDEN2 40
#define PARTS 5 /* logistic distributions in the mixture */
#define LANES 8    /* PARTS, rounded up to a whole vector */
#define OUTPUTS 16 /* 3 * PARTS, likewise */

typedef struct {
    int8_t row[NEIGHBOURS], column[NEIGHBOURS]; /* the neighbours' offsets, the nearest first */
    float w1[INPUTS][HIDDEN1], b1[HIDDEN1], w2[HIDDEN1][HIDDEN2], b2[HIDDEN2], w3[HIDDEN2][OUTPUTS], b3[OUTPUTS];
} Network;

typedef struct {
    uint32_t low, high, value;
    uint8_t *place;
    const uint8_t *end;
} Coder;

/* The exponential of each of LANES numbers, as one vector. */
static void exponentials(float *x) {
    int32_t bits[LANES];
    float rest[LANES], power[LANES];
    for (int k = 0; k < LANES; k++) {
        float t = x[k] < -80.0f ? -80.0f : x[k];
        t = (t > 80.0f ? 80.0f : t) * 1.44269504f;
        int32_t whole = (int32_t)(t + 1024.0f) - 1024; /* floor */
        bits[k] = (whole + 127) << 23;
        rest[k] = (t - (float)whole) * 0.69314718f;
    }
    memcpy(power, bits, sizeof power);
    for (int k = 0; k < LANES; k++) {
        float f = rest[k], y = 1.0f + f * (1.0f / 7);
        y = 1.0f + y * f * (1.0f / 6);
        y = 1.0f + y * f * (1.0f / 5);
        y = 1.0f + y * f * (1.0f / 4);
        y = 1.0f + y * f * (1.0f / 3);
        y = 1.0f + y * f * (1.0f / 2);
        x[k] = (1.0f + y * f) * power[k];
    }
}

static float logarithm(float x) { /* x >= 1 */
    float shift = 0.0f;
    while (x > 1.5f) { x *= 0.5f; shift += 0.69314718f; }
    float r = (x - 1.0f) / (x + 1.0f), r2 = r * r;
    return shift + 2.0f * r * (1.0f + r2 * (1.0f / 3 + r2 * (0.2f + r2 * (1.0f / 7 + r2 / 9))));
}

static float positive(float x) { return x < 0.0f ? -x : x; }

typedef struct { float weight[LANES], mean[LANES], inverse[LANES]; } Mixture;

/* What the network expects at the pixel whose place in the padded image is `at`; `spent` is the mean error so far. */
static Mixture expect(const Network *net, const uint8_t *at, int x, int y, float spent) {
    float input[INPUTS], one[HIDDEN1], two[HIDDEN2], out[OUTPUTS], scale = 0.0f;
    float base = 0.5f * ((float)at[-1] + (float)at[-WIDTH]);
    for (int n = 0; n < NEIGHBOURS; n++) {
        input[n] = (float)at[net->row[n] * WIDTH + net->column[n]] - base;
        if (n < NEAR) scale += positive(input[n]);
    }
    scale = scale / NEAR + 2.0f;
    for (int n = 0; n < NEIGHBOURS; n++) input[n] /= scale;
    input[NEIGHBOURS] = logarithm(scale);
    input[NEIGHBOURS + 1] = logarithm(spent + 1.0f);
    input[NEIGHBOURS + 2] = base / 128.0f - 1.0f;
    input[NEIGHBOURS + 3] = (float)x / 24.0f - 1.0f;
    input[NEIGHBOURS + 4] = (float)y / 24.0f - 1.0f;
    memcpy(one, net->b1, sizeof one);
    for (int i = 0; i < INPUTS; i++)
        for (int j = 0; j < HIDDEN1; j++) one[j] += input[i] * net->w1[i][j];
    for (int j = 0; j < HIDDEN1; j++) one[j] = one[j] < 0.0f ? 0.1f * one[j] : one[j];
    memcpy(two, net->b2, sizeof two);
    for (int i = 0; i < HIDDEN1; i++)
        for (int j = 0; j < HIDDEN2; j++) two[j] += one[i] * net->w2[i][j];
    for (int j = 0; j < HIDDEN2; j++) two[j] = two[j] < 0.0f ? 0.1f * two[j] : two[j];
    memcpy(out, net->b3, sizeof out);
    for (int i = 0; i < HIDDEN2; i++)
        for (int j = 0; j < OUTPUTS; j++) out[j] += two[i] * net->w3[i][j];
    Mixture mixture;
    float sum = 0.0f, top = out[0], chance[LANES] = {0}, width[LANES] = {0};
    for (int k = 1; k < PARTS; k++) top = out[k] > top ? out[k] : top;
    for (int k = 0; k < PARTS; k++) {
        float wide = out[2 * PARTS + k] - 1.5f;
        chance[k] = out[k] - top;
        width[k] = wide < -6.0f ? -6.0f : wide > 4.0f ? 4.0f : wide;
    }
    exponentials(chance);
    exponentials(width);
    for (int k = 0; k < PARTS; k++) sum += chance[k];
    for (int k = 0; k < LANES; k++) {
        mixture.weight[k] = k < PARTS ? 0.999f * chance[k] / sum : 0.0f;
        mixture.mean[k] = k < PARTS ? base + out[PARTS + k] * scale : 0.0f;
        mixture.inverse[k] = 1.0f / (scale * width[k]);
    }
    return mixture;
}

/* The chance of a grey level below `level`; a thousandth is spread evenly. */
static float below(const Mixture *mixture, int level) {
    float sum = 0.001f / 256.0f * (float)level, edge = (float)level - 0.5f, x[LANES];
    for (int k = 0; k < LANES; k++) x[k] = (mixture->mean[k] - edge) * mixture->inverse[k];
    exponentials(x);
    for (int k = 0; k < LANES; k++) x[k] = mixture->weight[k] / (1.0f + x[k]);
    for (int k = 0; k < PARTS; k++) sum += x[k];
    return sum;
}

static void narrow(Coder *coder, int bit, uint32_t middle) {
    if (bit) coder->high = middle;
    else coder->low = middle + 1;
}

static int code_bit(Coder *coder, int decoding, int bit, uint32_t chance) { /* chance of a one in 1/65536 */
    uint32_t middle = coder->low + (uint32_t)(((uint64_t)(coder->high - coder->low) * chance) >> 16);
    if (decoding) bit = coder->value <= middle;
    narrow(coder, bit, middle);
    while (((coder->low ^ coder->high) & 0xff000000u) == 0) {
        if (decoding) coder->value = coder->value << 8 | (coder->place < coder->end ? *coder->place : 0);
        else *coder->place = (uint8_t)(coder->high >> 24);
        coder->place++;
        coder->low <<= 8;
        coder->high = coder->high << 8 | 255;
    }
    return bit;
}

static uint8_t code_pixel(Coder *coder, int decoding, uint8_t pixel, const Mixture *mixture) {
    int low = 0, high = 256;
    float at_low = 0.0f, at_high = 1.0f;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        float at_middle = below(mixture, middle);
        float share = (at_high - at_middle) / (at_high - at_low);
        /* Rounding can leave no room between two levels, and then the share is no number, or none of this size. */
        int chance = share != share ? 32768 : share < 32767.0f && share > -32767.0f ? (int)(share * 65536.0f) : 16;
        chance = chance < 16 ? 16 : chance > 65520 ? 65520 : chance;
        if (code_bit(coder, decoding, pixel >= middle, (uint32_t)chance)) { low = middle; at_low = at_middle; }
        else { high = middle; at_high = at_middle; }
    }
    return (uint8_t)low;
}

/* Code `n` images of `pixels` into `bytes`, or from them; returns the bytes used. */
long code_images(const Network *net, int decoding, uint8_t *pixels, int n, uint8_t *bytes, long size) {
    Coder coder = {0, 0xffffffffu, 0, bytes, bytes + size};
    if (decoding)
        for (int i = 0; i < 4; i++) coder.value = coder.value << 8 | (coder.place < coder.end ? *coder.place++ : 0);
    for (int image = 0; image < n; image++) {
        uint8_t padded[(SIDE + REACH) * WIDTH];
        uint32_t errors = 0, finished = 0;
        memset(padded, 128, sizeof padded);
        for (int y = 0; y < SIDE; y++) {
            uint8_t *row = padded + (y + REACH) * WIDTH + REACH;
            if (y) memset(row - REACH, row[-WIDTH], REACH);
            float spent = y ? (float)finished / (float)(SIDE * y) : 8.0f;
            for (int x = 0; x < SIDE; x++) {
                uint8_t *at = row + x, *given = pixels + ((long)image * SIDE + y) * SIDE + x;
                Mixture mixture = expect(net, at, x, y, spent);
                *at = code_pixel(&coder, decoding, decoding ? 0 : *given, &mixture);
                if (decoding) *given = *at;
                int w = at[-1], up = at[-WIDTH], corner = at[-WIDTH - 1], less = w < up ? w : up, more = w + up - less;
                int median = corner >= more ? less : corner <= less ? more : w + up - corner;
                errors += (uint32_t)(*at > median ? *at - median : median - *at);
            }
            memset(row + SIDE, row[SIDE - 1], REACH);
            finished = errors;
        }
    }
    if (!decoding)
        for (int i = 0; i < 4; i++) *coder.place++ = (uint8_t)(coder.high >> (24 - 8 * i));
    return (long)(coder.place - bytes);
}
