// The loops of PDP that pass over every weight at every step. A processor reads the weights once and computes while it
// waits for memory; a chain of torch's operations goes over them once for each. pruneexp/cpu_kernels.py compiles this file.

#include <stdint.h>
#include <string.h>

enum { SHORT = 1 << 15 }; // weights of which one thread is done before others have woken up

// 1 / (1 + 2^x) to a few units in the last place, without branches, so that loops over it become vector instructions.
// 2^x = 2^k 2^r with k the integer nearest to x; the series of 2^r = exp(r ln 2) up to r^7 is off by less than 6e-9.
// What would be below the smallest normal number, 2^-126, is 0: denormal ones are slow on many processors.
static inline float falling(float x)
{
    const float to_integer = 12582912.0f; // 1.5 x 2^23: adding it leaves the nearest integer in the low bits
    float y = x < -126.0f ? -126.0f : x;
    float shifted = y + to_integer;
    float r = y - (shifted - to_integer);
    float series = 1.52527338e-05f; // (ln 2)^7 / 7!, and so on down to (ln 2)^0 / 0!
    series = series * r + 1.54035304e-04f;
    series = series * r + 1.33335581e-03f;
    series = series * r + 9.61812911e-03f;
    series = series * r + 5.55041087e-02f;
    series = series * r + 2.40226507e-01f;
    series = series * r + 6.93147181e-01f;
    series = series * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23; // the exponent field of 2^k
    float power;
    memcpy(&power, &bits, sizeof power);
    float result = 1.0f / (1.0f + series * power);
    return x > 126.0f ? 0.0f : result;
}

static const double LOG2_OF_E = 1.4426950408889634;

// out = m w with m = sigmoid(sharpness w^2 + offset)
void masked(const float *restrict w, float *restrict out, int64_t n, double sharpness, double offset, int threads)
{
    const float slope = (float)(-sharpness * LOG2_OF_E), start = (float)(-offset * LOG2_OF_E);
    (void)threads; // without OpenMP
#pragma omp parallel for simd num_threads(threads) if (n > SHORT) schedule(static)
    for (int64_t i = 0; i < n; i++)
        out[i] = w[i] * falling(slope * (w[i] * w[i]) + start);
}

// out = gradient times d(m w)/dw = m + 2 sharpness w^2 m (1 - m)
void masked_backward(const float *restrict w, const float *restrict gradient, float *restrict out, int64_t n,
                     double sharpness, double offset, int threads)
{
    const float slope = (float)(-sharpness * LOG2_OF_E), start = (float)(-offset * LOG2_OF_E);
    const float twice = (float)(2.0 * sharpness);
    (void)threads;
#pragma omp parallel for simd num_threads(threads) if (n > SHORT) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        float m = falling(slope * (w[i] * w[i]) + start);
        float inner = w[i] * m * (1.0f - m); // first, so that 0 and not infinity times 0 is far from the threshold
        out[i] = gradient[i] * (m + twice * w[i] * inner);
    }
}

// Returns how many |w| are below `low`, and puts those from `low` to `high` into `band`, in any order; `found` is how many
// these are, which may be more than the `room` there is.
int64_t count_and_band(const float *restrict w, int64_t n, float low, float high, float *restrict band, int64_t room,
                       int64_t *restrict found, int threads)
{
    enum { PIECE = 64 }; // most pieces have nothing in the band, and counting them is all there is to do
    int64_t below = 0, taken = 0;
    (void)threads;
#pragma omp parallel for num_threads(threads) if (n > SHORT) schedule(static) reduction(+ : below)
    for (int64_t start = 0; start < n; start += PIECE) {
        int64_t end = start + PIECE < n ? start + PIECE : n;
        int32_t lower = 0, up_to_high = 0;
        for (int64_t i = start; i < end; i++) {
            float magnitude = __builtin_fabsf(w[i]);
            lower += magnitude < low;
            up_to_high += magnitude <= high;
        }
        below += lower;
        if (up_to_high == lower)
            continue;
        int64_t place;
#pragma omp atomic capture
        {
            place = taken;
            taken += up_to_high - lower;
        }
        for (int64_t i = start; i < end; i++) {
            float magnitude = __builtin_fabsf(w[i]);
            if (magnitude >= low && magnitude <= high && place < room)
                band[place++] = magnitude;
        }
    }
    *found = taken;
    return below;
}
