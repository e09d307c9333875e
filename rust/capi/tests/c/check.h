/* What the test programs check with. A check that fails ends the program, naming the line and the library's last error. */
#ifndef CHECK_H
#define CHECK_H

#include "candle_phi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: expected %s; last error %d: %s\n", __FILE__, __LINE__, #condition,                \
                    (int)candle_phi_last_error(), candle_phi_last_error_message(NULL));                               \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

#define CHECK_OK(call) CHECK((call) == CANDLE_PHI_STATUS_OK)

/* A call that fails with a status, and a text that has `word` in it. */
#define CHECK_FAILS(call, status, word)                                                                               \
    do {                                                                                                              \
        CHECK((call) == (status));                                                                                    \
        CHECK(candle_phi_last_error() == (status));                                                                   \
        CHECK(strstr(candle_phi_last_error_message(NULL), (word)) != NULL);                                           \
    } while (0)

/* All chunks of a generation, joined, and how many there were. */
typedef struct {
    char text[65536];
    size_t len;
    size_t chunks;
    size_t stop_after; /* chunks; 0 for never */
} Heard;

static inline int32_t hear(const CandlePhiChunk *chunk, void *user_data) {
    Heard *heard = user_data;
    CHECK(heard->len + chunk->text.len < sizeof heard->text);
    if (chunk->text.len > 0) memcpy(heard->text + heard->len, chunk->text.data, chunk->text.len);
    heard->len += chunk->text.len;
    heard->chunks += 1;
    return heard->stop_after > 0 && heard->chunks >= heard->stop_after;
}

static inline int equal(CandlePhiStr str, const char *text, size_t len) {
    return str.len == len && (len == 0 || memcmp(str.data, text, len) == 0);
}

static inline int contains(CandlePhiStr str, const char *word) {
    size_t len = strlen(word);
    for (size_t at = 0; at + len <= str.len; at++) {
        if (memcmp(str.data + at, word, len) == 0) return 1;
    }
    return 0;
}

/* The likeliest tokens, at most so many. */
static inline CandlePhiGenerationOptions greedy(size_t max_tokens) {
    CandlePhiGenerationOptions options;
    candle_phi_generation_options_init(&options, sizeof options);
    options.temperature = 0;
    options.max_tokens = max_tokens;
    return options;
}

static inline CandlePhiModel *demo_model(void) {
    CandlePhiModel *model = NULL;
    CHECK_OK(candle_phi_model_load_demo(NULL, &model));
    return model;
}

static inline CandlePhiSession *new_session(const CandlePhiModel *model) {
    CandlePhiSession *session = NULL;
    CHECK_OK(candle_phi_session_new(model, NULL, &session));
    return session;
}

static inline CandlePhiMessage user(const char *text) {
    CandlePhiMessage message = {CANDLE_PHI_ROLE_USER, candle_phi_str(text)};
    return message;
}

static inline CandlePhiCompletionInfo info_of(const CandlePhiCompletion *completion) {
    CandlePhiCompletionInfo info;
    CHECK_OK(candle_phi_completion_info(completion, &info, sizeof info));
    return info;
}

/* The bytes of a file, to be freed. */
static inline unsigned char *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *len = (size_t)ftell(file);
    unsigned char *bytes = malloc(*len);
    CHECK(bytes != NULL && fseek(file, 0, SEEK_SET) == 0 && fread(bytes, 1, *len, file) == *len);
    fclose(file);
    return bytes;
}

#endif
