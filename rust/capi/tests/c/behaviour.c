/* What the library does for who uses it well: behaviour DEMO.gguf */
#include "check.h"

static void versions_and_models(const char *path) {
    CHECK(strlen(candle_phi_version()) >= strlen("0.1.0"));
    size_t len = 0;
    unsigned char *bytes = read_file(path, &len);
    CandlePhiLoadOptions options;
    candle_phi_load_options_init(&options, sizeof options);
    options.mmap = 0;
    options.prefault = 1;
    options.device = candle_phi_str("cpu");
    options.executor = candle_phi_str("kernels");
    CandlePhiModel *models[4] = {NULL};
    CHECK_OK(candle_phi_model_load(candle_phi_str(path), NULL, &models[0]));
    CHECK_OK(candle_phi_model_load(candle_phi_str(path), &options, &models[1]));
    CHECK_OK(candle_phi_model_load_bytes(bytes, len, NULL, &models[2]));
    memset(bytes, 0, len); /* they were copied */
    free(bytes);
    models[3] = demo_model();

    char first[4096] = "";
    size_t first_len = 0;
    for (int at = 0; at < 4; at++) {
        CandlePhiModelInfo info;
        CHECK_OK(candle_phi_model_info(models[at], &info, sizeof info));
        CHECK(equal(info.architecture, "phi3", 4) && info.name.len > 0 && info.quantization.len > 0);
        CHECK(info.file_size_bytes == len && info.weights_bytes < len && info.vocabulary_size > 0);
        CHECK(info.parameter_count > 0 && info.context_length > 0 && info.load_s > 0);

        CandlePhiSession *session = new_session(models[at]);
        candle_phi_model_free(models[at]); /* the session goes on */
        CandlePhiGenerationOptions options_of_all = greedy(60);
        CandlePhiMessage message = user("Count from 3 to 7");
        CandlePhiCompletion *completion = NULL;
        Heard heard = {.len = 0};
        CHECK_OK(candle_phi_chat(session, &message, 1, &options_of_all, hear, &heard, &completion));
        CandlePhiStr text = candle_phi_completion_text(completion);
        CHECK(equal(text, heard.text, heard.len)); /* chunks joined are the text */
        CHECK(contains(text, "3") && contains(text, "7") && !contains(text, "<|end|>"));
        if (at == 0) {
            first_len = text.len;
            memcpy(first, text.data, text.len);
        }
        CHECK(equal(text, first, first_len)); /* wherever the model was read from */

        CandlePhiCompletionInfo facts = info_of(completion);
        size_t n_tokens = 0;
        CHECK(candle_phi_completion_tokens(completion, &n_tokens) != NULL);
        CHECK(n_tokens == facts.completion_tokens && n_tokens + 1 >= heard.chunks);
        CHECK(facts.finish_reason == CANDLE_PHI_FINISH_REASON_STOP && facts.has_stop_token && facts.stop_token > 0);
        CHECK(facts.prompt_tokens > 0 && facts.prefill_s > 0 && facts.decode_s > 0 && facts.stop_text.len == 0);
        candle_phi_completion_free(completion);
        candle_phi_session_free(session);
    }
}

static void tokens_and_text(void) {
    CandlePhiModel *model = demo_model();
    const char *text = "ice h\xc3\xb6""ckey <|end|>";
    CandlePhiTokens plain, special, none;
    CHECK_OK(candle_phi_tokenize(model, candle_phi_str(text), 0, 0, &plain));
    CHECK_OK(candle_phi_tokenize(model, candle_phi_str(text), 1, 1, &special));
    CHECK(plain.len > special.len); /* a control token is one token, where it counts */
    CandlePhiText back;
    CHECK_OK(candle_phi_detokenize(model, plain.data, plain.len, 1, &back));
    CHECK(back.len == strlen(text) && strcmp(back.data, text) == 0);
    candle_phi_text_free(&back);
    CHECK(back.data == NULL && back.len == 0);
    candle_phi_text_free(&back);
    CHECK_OK(candle_phi_detokenize(model, special.data, special.len, 1, &back));
    CHECK(strstr(back.data, "<|end|>") == NULL);
    candle_phi_text_free(&back);
    candle_phi_tokens_free(&plain);
    candle_phi_tokens_free(&plain);
    candle_phi_tokens_free(&special);

    /* A length counts, not a NUL. */
    CandlePhiStr three = {"ice\0hockey", 3};
    CHECK_OK(candle_phi_tokenize(model, three, 0, 0, &plain));
    CHECK_OK(candle_phi_detokenize(model, plain.data, plain.len, 0, &back));
    CHECK(strcmp(back.data, "ice") == 0);
    candle_phi_text_free(&back);
    candle_phi_tokens_free(&plain);
    CHECK_OK(candle_phi_tokenize(model, candle_phi_str(NULL), 0, 0, &none));
    CHECK(none.data == NULL && none.len == 0);
    candle_phi_model_free(model);
}

static void a_conversation(void) {
    CandlePhiModel *model = demo_model();
    CandlePhiSession *session = new_session(model);
    CandlePhiGenerationOptions options = greedy(60);
    CandlePhiCompletion *completion = NULL;
    CandlePhiMessage remember = user("Remember the word lantern."), what = user("What was my word?");
    CHECK_OK(candle_phi_chat(session, &remember, 1, &options, NULL, NULL, &completion));
    CandlePhiMessage answer = {CANDLE_PHI_ROLE_ASSISTANT, candle_phi_completion_text(completion)};
    CandlePhiMessage history[3] = {remember, answer, what};

    CandlePhiSession *forked = NULL;
    CHECK_OK(candle_phi_session_fork(session, &forked));
    CandlePhiSession *restored = new_session(model); /* an app that was closed and brings what was said */
    CandlePhiCompletion *answers[3] = {NULL};
    CHECK_OK(candle_phi_chat(session, &what, 1, &options, NULL, NULL, &answers[0]));
    CHECK_OK(candle_phi_chat(forked, &what, 1, &options, NULL, NULL, &answers[1]));
    CHECK_OK(candle_phi_chat(restored, history, 3, &options, NULL, NULL, &answers[2]));
    for (int at = 0; at < 3; at++) {
        CHECK(contains(candle_phi_completion_text(answers[at]), "lantern"));
        CHECK((info_of(answers[at]).cached_tokens > 0) == (at < 2));
        candle_phi_completion_free(answers[at]);
    }
    /* Taken back, and said again: nothing but the last token is computed again. */
    CHECK_OK(candle_phi_session_rewind(session, 1));
    CHECK_OK(candle_phi_chat(session, &what, 1, &options, NULL, NULL, &answers[0]));
    CHECK(info_of(answers[0]).cached_tokens + 1 == info_of(answers[0]).prompt_tokens);
    candle_phi_completion_free(answers[0]);
    /* Forgotten. */
    CHECK_OK(candle_phi_session_reset(session));
    CHECK_OK(candle_phi_chat(session, &what, 1, &options, NULL, NULL, &answers[0]));
    CHECK(info_of(answers[0]).cached_tokens == 0 && !contains(candle_phi_completion_text(answers[0]), "lantern"));
    candle_phi_completion_free(answers[0]);
    candle_phi_completion_free(completion);
    candle_phi_session_free(restored);
    candle_phi_session_free(forked);
    candle_phi_session_free(session);
    candle_phi_model_free(model);
}

static CandlePhiCompletion *generate(CandlePhiSession *session, const CandlePhiGenerationOptions *options, Heard *heard) {
    CandlePhiCompletion *completion = NULL;
    CandlePhiStr prompt = candle_phi_str("<|user|>\nCount from 3 to 7<|end|>\n<|assistant|>\n");
    CHECK_OK(candle_phi_generate(session, prompt, options, heard ? hear : NULL, heard, &completion));
    return completion;
}

static void options_do_what_they_say(void) {
    CandlePhiModel *model = demo_model();
    CandlePhiSession *session = new_session(model);
    CandlePhiGenerationOptions options = greedy(5);
    CandlePhiCompletion *completion = generate(session, &options, NULL);
    CHECK(info_of(completion).completion_tokens == 5);
    CHECK(info_of(completion).finish_reason == CANDLE_PHI_FINISH_REASON_LENGTH);
    size_t n_tokens = 0;
    uint32_t banned = candle_phi_completion_tokens(completion, &n_tokens)[1];
    candle_phi_completion_free(completion);

    /* A prompt of ids is the same as its text. */
    CandlePhiTokens prompt;
    CandlePhiStr text = candle_phi_str("<|user|>\nCount from 3 to 7<|end|>\n<|assistant|>\n");
    CHECK_OK(candle_phi_tokenize(model, text, 1, 1, &prompt));
    CHECK_OK(candle_phi_generate_tokens(session, prompt.data, prompt.len, &options, NULL, NULL, &completion));
    CHECK(candle_phi_completion_tokens(completion, NULL)[1] == banned);
    candle_phi_completion_free(completion);
    candle_phi_tokens_free(&prompt);

    CandlePhiLogitBias bias = {banned, -1.0f / 0.0f};
    options.logit_bias = &bias;
    options.n_logit_bias = 1;
    completion = generate(session, &options, NULL);
    const uint32_t *others = candle_phi_completion_tokens(completion, &n_tokens);
    for (size_t at = 0; at < n_tokens; at++) CHECK(others[at] != banned);
    candle_phi_completion_free(completion);

    options = greedy(60);
    CandlePhiStr stops[2] = {candle_phi_str("no such text"), candle_phi_str("5")};
    options.stop = stops;
    options.n_stop = 2;
    Heard heard = {.len = 0};
    completion = generate(session, &options, &heard);
    CandlePhiCompletionInfo info = info_of(completion);
    CHECK(info.finish_reason == CANDLE_PHI_FINISH_REASON_STOP && equal(info.stop_text, "5", 1) && !info.has_stop_token);
    CandlePhiStr until = candle_phi_completion_text(completion);
    CHECK(equal(until, heard.text, heard.len) && contains(until, "4") && !contains(until, "5"));
    candle_phi_completion_free(completion);

    options = greedy(60);
    options.stop_token_ids = &banned;
    options.n_stop_token_ids = 1;
    completion = generate(session, &options, NULL);
    CHECK(info_of(completion).completion_tokens == 1 && info_of(completion).stop_token == banned);
    candle_phi_completion_free(completion);

    options = greedy(0);
    options.timeout_s = 1e-9;
    completion = generate(session, &options, NULL);
    CHECK(info_of(completion).finish_reason == CANDLE_PHI_FINISH_REASON_TIMEOUT);
    candle_phi_completion_free(completion);

    /* A seed that was reported gives the same again. */
    candle_phi_generation_options_init(&options, sizeof options);
    options.max_tokens = 8;
    options.ignore_eos = 1;
    CandlePhiCompletion *drawn = generate(session, &options, NULL);
    options.has_seed = 1;
    options.seed = info_of(drawn).seed;
    completion = generate(session, &options, NULL);
    CandlePhiStr again = candle_phi_completion_text(completion);
    CHECK(equal(candle_phi_completion_text(drawn), again.data, again.len));
    CHECK(info_of(completion).completion_tokens == 8);
    candle_phi_completion_free(drawn);
    candle_phi_completion_free(completion);

    CandlePhiSessionOptions small;
    candle_phi_session_options_init(&small, sizeof small);
    small.n_ctx = 32;
    small.n_threads = 1;
    small.kv_dtype = candle_phi_str("q8_0");
    small.isa = candle_phi_str("scalar");
    CandlePhiSession *little = NULL;
    CHECK_OK(candle_phi_session_new(model, &small, &little));
    options = greedy(0);
    options.ignore_eos = 1;
    completion = generate(little, &options, NULL);
    info = info_of(completion);
    CHECK(info.prompt_tokens + info.completion_tokens <= 33 && info.finish_reason == CANDLE_PHI_FINISH_REASON_LENGTH);
    candle_phi_completion_free(completion);
    candle_phi_session_free(little);
    candle_phi_session_free(session);
    candle_phi_model_free(model);
}

static void a_callback_that_cancels(void) {
    CandlePhiModel *model = demo_model();
    CandlePhiSession *session = new_session(model);
    CandlePhiGenerationOptions options = greedy(60);
    CandlePhiCompletion *completion = NULL;
    CandlePhiMessage message = user("Count from 3 to 7");
    Heard heard = {.stop_after = 3};
    CHECK_OK(candle_phi_chat(session, &message, 1, &options, hear, &heard, &completion));
    CHECK(heard.chunks == 3); /* it was not called again */
    CHECK(info_of(completion).finish_reason == CANDLE_PHI_FINISH_REASON_CANCELLED);
    CHECK(info_of(completion).completion_tokens == 3);
    candle_phi_completion_free(completion);
    /* What was cancelled was not said: there is no turn to take back. */
    CHECK_FAILS(candle_phi_session_rewind(session, 1), CANDLE_PHI_STATUS_INVALID_OPTION, "turns");
    Heard whole = {.len = 0};
    CHECK_OK(candle_phi_chat(session, &message, 1, &options, hear, &whole, &completion));
    CHECK(info_of(completion).finish_reason == CANDLE_PHI_FINISH_REASON_STOP);
    CHECK(whole.len > heard.len && memcmp(whole.text, heard.text, heard.len) == 0);
    candle_phi_completion_free(completion);
    candle_phi_session_free(session);
    candle_phi_model_free(model);
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    versions_and_models(argv[1]);
    tokens_and_text();
    a_conversation();
    options_do_what_they_say();
    a_callback_that_cancels();
    puts("behaviour: ok");
    return 0;
}
