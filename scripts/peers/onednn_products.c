/* The yardstick of `make kernels`: oneDNN's f32 products at the sizes of SmolLM2-135M, GFLOP/s.
 *
 *   cc -O2 scripts/peers/onednn_products.c -ldnnl -o target/onednn_products     (Debian: libdnnl-dev)
 *   OMP_NUM_THREADS=1 target/onednn_products
 */
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROWS = 96, SAMPLES = 15 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static float *values(size_t count) {
    float *values = malloc(count * sizeof *values);
    if (!values) exit(1);
    for (size_t i = 0; i < count; i++) values[i] = (i * 7919 % 10007) / 5003.5f - 1.0f;
    return values;
}

static int compare(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Median of the rates; the weights lie `[inputs][outputs]`, as oneDNN likes them best. */
static double rate(size_t inputs, size_t outputs) {
    float *x = values(ROWS * inputs), *weights = values(inputs * outputs), *out = values(ROWS * outputs);
    double flops = 2.0 * ROWS * inputs * outputs, rates[SAMPLES];
    int runs = 1 + (int)(2e9 / flops);
    for (int sample = 0; sample < SAMPLES; sample++) {
        double start = seconds();
        for (int run = 0; run < runs; run++)
            if (dnnl_sgemm('N', 'N', ROWS, outputs, inputs, 1.0f, x, inputs, weights, outputs, 0.0f, out, outputs) != dnnl_success)
                exit(1);
        rates[sample] = flops * runs / (seconds() - start) / 1e9;
    }
    qsort(rates, SAMPLES, sizeof *rates, compare);
    free(x), free(weights), free(out);
    return rates[SAMPLES / 2];
}

int main(void) {
    printf("qkv %.1f\n", rate(576, 960));
    printf("output %.1f\n", rate(576, 576));
    printf("gate_up %.1f\n", rate(576, 3072));
    printf("down %.1f\n", rate(1536, 576));
    printf("head %.1f\n", rate(576, 1024));
    return 0;
}
