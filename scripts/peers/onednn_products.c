/* The yardstick of scripts/products.py and `make kernels`: oneDNN's products at the sizes of SmolLM2-135M, GFLOP/s, in f32 and
 * of bf16 with sums and results in f32. Its weights are laid out as it likes them best, beforehand.
 *
 *   cc -O2 scripts/peers/onednn_products.c -ldnnl -o target/onednn_products     (Debian: libdnnl-dev 2)
 *   OMP_NUM_THREADS=1 target/onednn_products [ROWS]
 */
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLES = 15 };
#define CHECK(call) do { if ((call) != dnnl_success) { fprintf(stderr, "failed: %s\n", #call); exit(1); } } while (0)

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* A matrix with values between -1 and 1. */
static dnnl_memory_t matrix(dnnl_engine_t engine, const dnnl_memory_desc_t *layout, dnnl_data_type_t type) {
    dnnl_memory_t memory;
    void *data;
    CHECK(dnnl_memory_create(&memory, layout, engine, DNNL_MEMORY_ALLOCATE));
    CHECK(dnnl_memory_get_data_handle(memory, &data));
    size_t bytes = dnnl_memory_desc_get_size(layout), each = type == dnnl_bf16 ? 2 : 4;
    for (size_t i = 0; i < bytes / each; i++) {
        float value = (i * 7919 % 10007) / 5003.5f - 1.0f;
        memcpy((char *)data + i * each, (char *)&value + (4 - each), each);
    }
    return memory;
}

/* The best rate: what else runs on the machine only ever makes it lower. */
static double rate(dnnl_engine_t engine, dnnl_stream_t stream, dnnl_data_type_t type,
                   dnnl_dim_t rows, dnnl_dim_t inputs, dnnl_dim_t outputs) {
    dnnl_dims_t x_dims = {rows, inputs}, weight_dims = {inputs, outputs}, out_dims = {rows, outputs};
    dnnl_memory_desc_t x_layout, weight_layout, out_layout;
    CHECK(dnnl_memory_desc_init_by_tag(&x_layout, 2, x_dims, type, dnnl_ab));
    CHECK(dnnl_memory_desc_init_by_tag(&weight_layout, 2, weight_dims, type, dnnl_format_tag_any));
    CHECK(dnnl_memory_desc_init_by_tag(&out_layout, 2, out_dims, dnnl_f32, dnnl_ab));
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t product;
    CHECK(dnnl_matmul_desc_init(&operation, &x_layout, &weight_layout, NULL, &out_layout));
    CHECK(dnnl_primitive_desc_create(&description, &operation, NULL, engine, NULL));
    CHECK(dnnl_primitive_create(&product, description));
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
    dnnl_memory_t x = matrix(engine, &x_layout, type), weights = matrix(engine, packed, type);
    dnnl_memory_t out = matrix(engine, &out_layout, dnnl_f32);
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, out}};
    double flops = 2.0 * rows * inputs * outputs, rates[SAMPLES];
    int runs = 1 + (int)(4e9 / flops);
    for (int sample = 0; sample < SAMPLES; sample++) {
        double start = seconds();
        for (int run = 0; run < runs; run++) {
            CHECK(dnnl_primitive_execute(product, stream, 3, arguments));
            CHECK(dnnl_stream_wait(stream));
        }
        rates[sample] = flops * runs / (seconds() - start) / 1e9;
    }
    qsort(rates, SAMPLES, sizeof *rates, compare);
    dnnl_memory_destroy(x), dnnl_memory_destroy(weights), dnnl_memory_destroy(out);
    dnnl_primitive_destroy(product), dnnl_primitive_desc_destroy(description);
    return rates[SAMPLES - 1];
}

int main(int count, char **words) {
    static const struct { const char *name; int inputs, outputs; } LAYERS[] = {
        {"qkv", 576, 960}, {"output", 576, 576}, {"gate_up", 576, 3072}, {"down", 1536, 576}, {"head", 576, 1024}};
    int rows = count > 1 ? atoi(words[1]) : 96;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
    CHECK(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags));
    printf("%-8s %8s %8s   GFLOP/s, %d rows\n", "", "f32", "bf16", rows);
    for (size_t i = 0; i < sizeof LAYERS / sizeof *LAYERS; i++)
        printf("%-8s %8.1f %8.1f\n", LAYERS[i].name,
               rate(engine, stream, dnnl_f32, rows, LAYERS[i].inputs, LAYERS[i].outputs),
               rate(engine, stream, dnnl_bf16, rows, LAYERS[i].inputs, LAYERS[i].outputs));
    return 0;
}
