/* Two threads: sessions side by side, one session for two, cancelling from outside, errors of one's own. */
#include "check.h"

#include <pthread.h>

/* Where one thread waits for what another has done. */
typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int reached;
} Gate;

#define GATE {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static void open_gate(Gate *gate) {
    pthread_mutex_lock(&gate->lock);
    gate->reached = 1;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void pass(Gate *gate) {
    pthread_mutex_lock(&gate->lock);
    while (!gate->reached) pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

typedef struct {
    CandlePhiModel *model;
    CandlePhiSession *session;
    CandlePhiCancelToken *cancel;
    CandlePhiCompletion *completion;
    Gate begun;
    Gate may_end;
} Job;

/* Generates until the context is full, unless it is cancelled. */
static CandlePhiStatus generate_long(Job *job, CandlePhiOnChunk on_chunk) {
    CandlePhiGenerationOptions options = greedy(0);
    options.ignore_eos = 1;
    options.cancel = job->cancel;
    CandlePhiMessage message = user("Count from 3 to 7");
    return candle_phi_chat(job->session, &message, 1, &options, on_chunk, job, &job->completion);
}

static int32_t say_that_it_began(const CandlePhiChunk *chunk, void *user_data) {
    (void)chunk;
    open_gate(&((Job *)user_data)->begun);
    return 0;
}

static void *run_long(void *argument) {
    CHECK_OK(generate_long(argument, say_that_it_began));
    return NULL;
}

static void another_thread_cancels(CandlePhiModel *model) {
    Job job = {.model = model, .session = new_session(model), .cancel = candle_phi_cancel_token_new(), .begun = GATE};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_long, &job) == 0);
    pass(&job.begun);
    candle_phi_cancel_token_cancel(job.cancel);
    pthread_join(thread, NULL);
    CHECK(info_of(job.completion).finish_reason == CANDLE_PHI_FINISH_REASON_CANCELLED);
    CHECK(info_of(job.completion).completion_tokens > 0);
    candle_phi_completion_free(job.completion);

    /* A token that is cancelled stays so: what begins later ends at once, loading too. */
    CHECK_OK(generate_long(&job, NULL));
    CHECK(info_of(job.completion).finish_reason == CANDLE_PHI_FINISH_REASON_CANCELLED);
    CHECK(info_of(job.completion).completion_tokens == 0);
    candle_phi_completion_free(job.completion);
    CandlePhiLoadOptions options;
    candle_phi_load_options_init(&options, sizeof options);
    options.cancel = job.cancel;
    CandlePhiModel *none = model;
    CHECK_FAILS(candle_phi_model_load_demo(&options, &none), CANDLE_PHI_STATUS_CANCELLED, "cancelled");
    CHECK(none == NULL);
    candle_phi_cancel_token_reset(job.cancel);
    CHECK_OK(candle_phi_model_load_demo(&options, &none));
    candle_phi_model_free(none);
    candle_phi_cancel_token_free(job.cancel);
    candle_phi_session_free(job.session);
}

static int32_t wait_to_end(const CandlePhiChunk *chunk, void *user_data) {
    (void)chunk;
    Job *job = user_data;
    open_gate(&job->begun);
    pass(&job->may_end);
    return 1;
}

static void *run_until_told(void *argument) {
    CHECK_OK(generate_long(argument, wait_to_end));
    return NULL;
}

static void one_session_is_one_thread_s_at_a_time(CandlePhiModel *model) {
    Job job = {.model = model, .session = new_session(model), .begun = GATE, .may_end = GATE};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, run_until_told, &job) == 0);
    pass(&job.begun);
    CandlePhiCompletion *completion = (CandlePhiCompletion *)&job;
    CandlePhiSession *forked = (CandlePhiSession *)&job;
    CHECK_FAILS(candle_phi_generate(job.session, candle_phi_str("x"), NULL, NULL, NULL, &completion),
                CANDLE_PHI_STATUS_SESSION_BUSY, "another call");
    CHECK(completion == NULL);
    CHECK_FAILS(candle_phi_session_fork(job.session, &forked), CANDLE_PHI_STATUS_SESSION_BUSY, "another call");
    CHECK(forked == NULL);
    CHECK_FAILS(candle_phi_session_reset(job.session), CANDLE_PHI_STATUS_SESSION_BUSY, "another call");
    CHECK_FAILS(candle_phi_session_rewind(job.session, 0), CANDLE_PHI_STATUS_SESSION_BUSY, "another call");
    /* The call that has it keeps it, also where its handle is freed meanwhile. */
    candle_phi_session_free(job.session);
    open_gate(&job.may_end);
    pthread_join(thread, NULL);
    CHECK(info_of(job.completion).completion_tokens == 1);
    candle_phi_completion_free(job.completion);
}

static int32_t call_again(const CandlePhiChunk *chunk, void *user_data) {
    (void)chunk;
    Job *job = user_data;
    if (job->session == NULL) return 1;
    /* Its own session is busy; another one is not, and its end is not this call's. */
    CHECK_FAILS(candle_phi_generate(job->session, candle_phi_str("x"), NULL, NULL, NULL, NULL),
                CANDLE_PHI_STATUS_SESSION_BUSY, "another call");
    CandlePhiSession *other = new_session(job->model);
    CandlePhiGenerationOptions options = greedy(2);
    CHECK_OK(candle_phi_generate(other, candle_phi_str("Hello"), &options, NULL, NULL, NULL));
    candle_phi_session_free(other);
    CHECK_FAILS(candle_phi_session_new(NULL, NULL, &other), CANDLE_PHI_STATUS_INVALID_ARGUMENT, "model");
    candle_phi_session_free(job->session);
    job->session = NULL;
    return 0;
}

static void a_callback_may_call(CandlePhiModel *model) {
    Job job = {.model = model, .session = new_session(model)};
    CHECK_OK(generate_long(&job, call_again));
    CHECK(candle_phi_last_error() == CANDLE_PHI_STATUS_OK);
    CHECK(info_of(job.completion).finish_reason == CANDLE_PHI_FINISH_REASON_CANCELLED);
    CHECK(info_of(job.completion).completion_tokens == 2);
    candle_phi_completion_free(job.completion);
}

static void *count(void *argument) {
    Job *job = argument;
    CandlePhiGenerationOptions options;
    candle_phi_generation_options_init(&options, sizeof options);
    options.has_seed = 1;
    options.seed = 11;
    options.max_tokens = 40;
    CandlePhiMessage message = user("Write a haiku about snow");
    for (int round = 0; round < 3; round++) {
        candle_phi_completion_free(job->completion);
        CHECK_OK(candle_phi_session_reset(job->session));
        CHECK_OK(candle_phi_chat(job->session, &message, 1, &options, NULL, NULL, &job->completion));
    }
    return NULL;
}

static void sessions_of_one_model_side_by_side(CandlePhiModel *model) {
    Job jobs[2] = {{.session = new_session(model)}, {.session = new_session(model)}};
    pthread_t threads[2];
    for (int at = 0; at < 2; at++) CHECK(pthread_create(&threads[at], NULL, count, &jobs[at]) == 0);
    for (int at = 0; at < 2; at++) pthread_join(threads[at], NULL);
    CandlePhiStr first = candle_phi_completion_text(jobs[0].completion);
    CHECK(first.len > 0 && equal(candle_phi_completion_text(jobs[1].completion), first.data, first.len));
    for (int at = 0; at < 2; at++) {
        candle_phi_completion_free(jobs[at].completion);
        candle_phi_session_free(jobs[at].session);
    }
}

static void *fail_elsewhere(void *argument) {
    CHECK(candle_phi_last_error() == CANDLE_PHI_STATUS_OK);
    CHECK_FAILS(candle_phi_model_load(candle_phi_str("missing.gguf"), NULL, argument),
                CANDLE_PHI_STATUS_MODEL_NOT_FOUND, "missing.gguf");
    return NULL;
}

static void each_thread_has_its_errors(void) {
    CandlePhiModel *none = NULL;
    CHECK_FAILS(candle_phi_session_new(NULL, NULL, NULL), CANDLE_PHI_STATUS_INVALID_ARGUMENT, "session");
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, fail_elsewhere, &none) == 0);
    pthread_join(thread, NULL);
    CHECK(candle_phi_last_error() == CANDLE_PHI_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(candle_phi_last_error_message(NULL), "session") != NULL);
}

int main(int argc, char **argv) {
    (void)argc, (void)argv;
    CandlePhiModel *model = demo_model();
    another_thread_cancels(model);
    one_session_is_one_thread_s_at_a_time(model);
    a_callback_may_call(model);
    sessions_of_one_model_side_by_side(model);
    each_thread_has_its_errors();
    candle_phi_model_free(model);
    puts("threads: ok");
    return 0;
}
