/* The part of an app that is below its screens: a worker thread computes, the thread that draws asks, stops and shows. */
#include "candle_phi.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the two threads share. */
typedef struct {
    CandlePhiSession *session;
    CandlePhiCancelToken *stop;
    pthread_t worker;
    char question[256];
    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t news;
    char text[4096];
    size_t len;
    int done;
} Conversation;

/* On the worker: a screen would be told here to draw, on its own thread. */
static int32_t show(const CandlePhiChunk *chunk, void *user_data) {
    Conversation *conversation = user_data;
    pthread_mutex_lock(&conversation->lock);
    size_t room = sizeof conversation->text - conversation->len;
    int fits = chunk->text.len <= room;
    if (fits && chunk->text.len > 0) {
        memcpy(conversation->text + conversation->len, chunk->text.data, chunk->text.len);
        conversation->len += chunk->text.len;
    }
    pthread_cond_signal(&conversation->news);
    pthread_mutex_unlock(&conversation->lock);
    return fits ? 0 : 1; /* anything but 0 ends the answer */
}

static void *work(void *argument) {
    Conversation *conversation = argument;
    CandlePhiGenerationOptions options;
    candle_phi_generation_options_init(&options, sizeof options);
    options.cancel = conversation->stop;
    options.timeout_s = 300;
    CandlePhiMessage message = {CANDLE_PHI_ROLE_USER, candle_phi_str(conversation->question)};
    CandlePhiCompletion *completion = NULL;
    if (candle_phi_chat(conversation->session, &message, 1, &options, show, conversation, &completion)) {
        /* The text is this thread's: look at it here. */
        fprintf(stderr, "%s\n", candle_phi_last_error_message(NULL));
    } else {
        CandlePhiCompletionInfo info;
        candle_phi_completion_info(completion, &info, sizeof info);
        if (info.finish_reason == CANDLE_PHI_FINISH_REASON_CANCELLED) fprintf(stderr, "(stopped)\n");
        candle_phi_completion_free(completion);
    }
    pthread_mutex_lock(&conversation->lock);
    conversation->done = 1;
    pthread_cond_signal(&conversation->news);
    pthread_mutex_unlock(&conversation->lock);
    return NULL;
}

/* On the thread that draws: returns at once. */
static int ask(Conversation *conversation, const char *question) {
    candle_phi_cancel_token_reset(conversation->stop);
    snprintf(conversation->question, sizeof conversation->question, "%s", question);
    conversation->len = 0;
    conversation->done = 0;
    return pthread_create(&conversation->worker, NULL, work, conversation);
}

/* The button "stop"; also when the app goes into the background. Returns at once. */
static void stop(Conversation *conversation) {
    candle_phi_cancel_token_cancel(conversation->stop);
}

/* Waits until there are more than `len` bytes to show, or the answer has ended. */
static size_t wait_for_text(Conversation *conversation, size_t len) {
    pthread_mutex_lock(&conversation->lock);
    while (!conversation->done && conversation->len <= len) pthread_cond_wait(&conversation->news, &conversation->lock);
    len = conversation->len;
    pthread_mutex_unlock(&conversation->lock);
    return len;
}

int main(int argc, char **argv) {
    static Conversation conversation = {.lock = PTHREAD_MUTEX_INITIALIZER, .news = PTHREAD_COND_INITIALIZER};
    CandlePhiSessionOptions options;
    candle_phi_session_options_init(&options, sizeof options);
    options.n_ctx = 512;                         /* memory is taken as the conversation grows, up to this */
    options.kv_dtype = candle_phi_str("q8_0");   /* and half as much of it */
    CandlePhiModel *model = NULL;
    if ((argc > 1 ? candle_phi_model_load(candle_phi_str(argv[1]), NULL, &model)
                  : candle_phi_model_load_demo(NULL, &model)) ||
        candle_phi_session_new(model, &options, &conversation.session)) {
        fprintf(stderr, "%s\n", candle_phi_last_error_message(NULL));
        return 1;
    }
    candle_phi_model_free(model);
    conversation.stop = candle_phi_cancel_token_new();

    /* A person asks, and has seen enough after a few words. */
    if (ask(&conversation, "Write a haiku about ice hockey")) return 1;
    wait_for_text(&conversation, 10);
    stop(&conversation);
    pthread_join(conversation.worker, NULL);

    /* What was stopped was not said; the conversation goes on without it. */
    if (ask(&conversation, "Count from 3 to 7")) return 1;
    pthread_join(conversation.worker, NULL);
    printf("%.*s\n", (int)conversation.len, conversation.text);

    candle_phi_session_free(conversation.session);
    candle_phi_cancel_token_free(conversation.stop);
    return 0;
}
