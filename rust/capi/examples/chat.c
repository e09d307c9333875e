/* Asks a model two things and prints the answers as they come: chat [MODEL.gguf] */
#include "candle_phi.h"

#include <stdio.h>

static int32_t print(const CandlePhiChunk *chunk, void *user_data) {
    (void)user_data;
    fwrite(chunk->text.data, 1, chunk->text.len, stdout);
    fflush(stdout);
    return 0; /* go on */
}

static int failed(const char *what) {
    fprintf(stderr, "%s: error %d: %s\n", what, (int)candle_phi_last_error(), candle_phi_last_error_message(NULL));
    return 1;
}

static CandlePhiStatus ask(CandlePhiSession *session, const char *question) {
    CandlePhiGenerationOptions options;
    candle_phi_generation_options_init(&options, sizeof options);
    options.max_tokens = 60;
    options.has_seed = 1; /* the same answer each time; without it, another */
    options.seed = 1;

    CandlePhiMessage message = {CANDLE_PHI_ROLE_USER, candle_phi_str(question)};
    CandlePhiStatus status = candle_phi_chat(session, &message, 1, &options, print, NULL, NULL);
    printf("\n\n");
    return status;
}

int main(int argc, char **argv) {
    CandlePhiModel *model = NULL;
    CandlePhiSession *session = NULL;
    CandlePhiStatus status = argc > 1 ? candle_phi_model_load(candle_phi_str(argv[1]), NULL, &model)
                                      : candle_phi_model_load_demo(NULL, &model);
    if (status != CANDLE_PHI_STATUS_OK) return failed("loading");
    status = candle_phi_session_new(model, NULL, &session);
    candle_phi_model_free(model); /* the session keeps what it needs */
    if (status != CANDLE_PHI_STATUS_OK) return failed("beginning a session");

    status = ask(session, "Write a haiku about ice hockey");
    if (status == CANDLE_PHI_STATUS_OK) status = ask(session, "Count from 3 to 7");
    int code = status == CANDLE_PHI_STATUS_OK ? 0 : failed("generating");
    candle_phi_session_free(session);
    return code;
}
