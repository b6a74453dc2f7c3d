// Log-probability of one token a row, from `rows` rows of `vocabulary` logits.
#include <math.h>

void log_probability(const float *logits, long rows, long vocabulary, const int *targets, float *out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < rows; row++) {
        const float *of_row = logits + row * vocabulary;
        float largest = of_row[0], sum = 0;
        for (long i = 1; i < vocabulary; i++) largest = of_row[i] > largest ? of_row[i] : largest;
        for (long i = 0; i < vocabulary; i++) sum += expf(of_row[i] - largest);
        out[row] = of_row[targets[row]] - largest - logf(sum);
    }
}
